"""The model card: what the checkpoint is, how to run it, how it was made and how it measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from autocomp.checkpoint.folder import CARD
from autocomp.checkpoint.kinds import escaped, kind_of
from autocomp.files import write_text
from autocomp.policy import Policy
from autocomp.provenance import machine, versions
from autocomp.space.metrics import METRICS
from autocomp.targets import TargetSettings
from autocomp.titles import changing, compared, name_and_unit, number, title
from autocomp.words import describe

RATIO = "latency_ratio"
"""This and the ends of its interval are told in words, beside the latency."""
MADE_WITH = ("autocomp", "torch", "onnx", "onnxruntime")


class Example(NamedTuple):
    """One example of the data by name: what the model, the dense model and a person say of it."""

    name: str
    said: str
    dense: str
    reference: str


@dataclass(frozen=True)
class Card:
    """All that a model card tells.

    `task` is the section of the space file, `objectives` the metrics that were asked for, `dense`
    the dense model's metrics, `dev_size` how many images quality was measured on, `image_size` the
    pixels a side of what the model takes if not what the data give. A policy without
    steps is the dense model's own card.
    """

    task: Mapping[str, Any]
    policy: Policy
    target: TargetSettings
    objectives: tuple[str, ...]
    metrics: Mapping[str, float]
    dense: Mapping[str, float]
    dev_size: int
    examples: tuple[Example, ...] = ()
    skipped: tuple[str, ...] = ()
    image_size: int | None = None

    @property
    def is_dense(self) -> bool:
        return not self.policy.steps


def write_card(directory: Path, card: Card) -> None:
    """Write README.md into the checkpoint's folder."""
    sections = {
        "Run it": kind_of(card.task).run,
        "How it was made": _made(card),
        "How it measured": _measured(card),
        "What it says": _says(card) if card.examples else "",
        "What was not done": _skipped(card.skipped),
        "Data": _data(card),
    }
    parts = [_summary(card), *(f"## {name}\n\n{text}" for name, text in sections.items() if text)]
    write_text(directory / CARD, "\n\n".join(parts) + "\n")


def _summary(card: Card) -> str:
    """The title and the one paragraph for those who read no more."""
    name, sentence = kind_of(card.task).about(card.task, card.image_size)
    if card.is_dense:
        gain, what = "dense", "Nothing is compressed: others are measured against it."
    else:
        gains = [one for metric in card.objectives if (one := _gain(card, metric))]
        gain = f"{' and '.join(gains)} than dense" if gains else ""
        what = "Made by autocomp from a dense model."
    figures = ", ".join(_figure(card, one) for one in card.objectives if one in card.metrics)
    told = f" {figures}." if figures else ""
    return f"# {', '.join(filter(None, (name, gain)))}\n\n{sentence} {what}{told}"


def _gain(card: Card, metric: str) -> str:
    """What the title boasts of: "4.9x smaller", but no "3% slower" and no quality."""
    words = compared(metric, card.metrics.get(metric, 0.0), card.dense.get(metric))
    return words if re.fullmatch(r"\S+x (smaller|faster)", words) else ""


def _figure(card: Card, metric: str) -> str:
    """A metric in a sentence: "size 7.40 MB (4.9x smaller)"."""
    name, unit = name_and_unit(metric)
    told = " ".join(filter(None, (name, number(card.metrics[metric]), unit)))
    words = compared(metric, card.metrics[metric], card.dense.get(metric))
    return f"{told} ({words})" if words and not card.is_dense else told


def _made(card: Card) -> str:
    steps = ["Trained as the section `task` of `config.json` says; nothing is compressed."]
    if not card.is_dense:
        phrases = enumerate(describe(changing(card.policy)), 1)
        steps = ["From the dense model, in this order:", ""]
        steps += [f"{index}. {escaped(phrase)}" for index, phrase in phrases]
    found = versions()
    tools = [f"{name} {found[name]}" for name in MADE_WITH if name in found]
    return "\n".join(steps) + f"\n\nMade with {', '.join(tools)}."


def _measured(card: Card) -> str:
    kind = kind_of(card.task)
    names = [*(one for one in METRICS if one in card.metrics), *card.metrics]
    rows = [_row(card, one) for one in dict.fromkeys(names) if not one.startswith(RATIO)]
    head = ["", "this model"] if card.is_dense else ["", "this model", "dense", ""]
    here, target = machine(), card.target
    features = [f"{here['cores']} cores", here["system"], *here["instructions"]]
    threads = "1 thread" if target.threads == 1 else f"{target.threads} threads"
    return (
        f"{_table(head, rows)}\n\n"
        f"Quality is that of the {card.dev_size} {kind.example}s of the dev split, on which "
        f"policies are chosen; `autocomp verify . --split test` measures it on {kind.example}s "
        "that no search reads. "
        f"Size, time and memory are those of these very files in {target.kind} with {threads} and "
        f"batch size {target.batch_size}, on {escaped(here['processor'])} "
        f"({escaped(', '.join(features))}). {kind.latency} Latency, p90, is the 90th percentile of "
        "the ratios to dense, times dense's latency: how unevenly the model runs. "
        "Download is what `autocomp rebuild .` makes these files from."
    )


def _row(card: Card, metric: str) -> list[str]:
    value, dense = card.metrics[metric], card.dense.get(metric)
    cells = [title(metric), number(value)]
    if card.is_dense:
        return cells
    words = compared(metric, value, dense)
    low, high = card.metrics.get(f"{RATIO}_low"), card.metrics.get(f"{RATIO}_high")
    if metric == "latency_ms" and low and high:
        words += f" (95% interval {1 / high:.2f}x to {1 / low:.2f}x)"
    return [*cells, "" if dense is None else number(dense), words]


def _says(card: Card) -> str:
    kind = kind_of(card.task)
    head = [kind.example, "this model", "dense", kind.truth]
    rows = [[escaped(cell) for cell in example] for example in card.examples]
    if card.is_dense:
        head, rows = [head[0], *head[2:]], [[row[0], *row[2:]] for row in rows]
    first = f"The first {len(rows)} {kind.example}s of the dev split, whatever they show:"
    return f"{first}\n\n{_table(head, rows)}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _skipped(lines: Sequence[str]) -> str:
    """A line for each reason, with all it holds for; steps count from 1, as in the list of them."""
    held: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        where, _, rest = line.partition(": ")
        what, _, reason = rest.rpartition(": ")
        step = re.fullmatch(r"steps\.(\d+)\.(\w+)", where)
        place = f"step {int(step[1]) + 1}, {step[2]}" if step else where
        held.setdefault((place, reason), []).append(what)
    told = [
        ": ".join(filter(None, (place, ", ".join(whats), reason)))
        for (place, reason), whats in held.items()
    ]
    return "\n".join(f"- {escaped(line)}" for line in told)


def _data(card: Card) -> str:
    """What is known of the data's terms; nothing is said of what is not."""
    return DATA.get(card.task.get("data", {}).get("kind"), "")


DATA = {
    "cifar10": (
        "CIFAR-10 (Krizhevsky, 2009): 60,000 images of ten classes, collected from the web; none "
        "is part of this checkpoint."
    ),
    "coco_captions": (
        "COCO's captions (Chen et al., 2015) are under CC BY 4.0. Its photos (Lin et al., 2014) "
        "belong to those who took them; none is part of this checkpoint."
    ),
    "flickr8k": (
        "Flickr8k (Hodosh, Young and Hockenmaier, 2013) is for non-commercial research and "
        "education. Its photos belong to those who took them; none is part of this checkpoint."
    ),
    "karpathy": (
        "Flickr8k, Flickr30k or COCO in the splits of Karpathy and Fei-Fei (2015). The first two "
        "are for non-commercial research and education; COCO's captions are under CC BY 4.0. The "
        "photos belong to those who took them; none is part of this checkpoint."
    ),
    "scenes": "The training images were drawn, and their captions written, by autocomp itself.",
}
"""For each kind of data, where it is from and what it may be used for."""
