from __future__ import annotations

from dataclasses import replace
from importlib.metadata import requires
from pathlib import Path

import pytest
from tiny_models import SECTION

from autocomp.checkpoint.card import DATA, Card, Example, write_card
from autocomp.checkpoint.folder import CARD
from autocomp.checkpoint.kinds import KINDS, escaped
from autocomp.data import captions, labels
from autocomp.deploy.photos import OLDEST
from autocomp.policy import Policy, Quantize, Retrain
from autocomp.provenance import machine
from autocomp.targets import TargetSettings
from autocomp.tasks.registry import TASKS

TASK = {**SECTION, "model": {**SECTION["model"], "backbone": "tf_efficientnet_lite0"}}
DENSE = {"cider": 0.5, "size_mb": 9.8, "latency_ms": 3.0, "latency_ratio": 1.0}
POLICY = Policy(steps=(Retrain(steps=20), Quantize(layers=("decoder.*_proj",), bits=8)))
HERE = Card(
    task=TASK,
    policy=POLICY,
    target=TargetSettings(),
    objectives=("cider", "size_mb", "latency_ms"),
    metrics={
        "latency_ratio": 0.5,
        "latency_ratio_low": 0.4,
        "latency_ratio_high": 0.8,
        "latency_ms": 1.5,
        "size_mb": 2.0,
        "cider": 0.48,
        "tokens_a_day": 5.4e-10,
    },
    dense=DENSE,
    dev_size=1000,
    examples=(Example("a_1.jpg", "a dog | a cat", "a dog", "Two dogs\nrun <b>fast</b>"),),
)


def written(directory: Path, card: Card) -> str:
    write_card(directory, card)
    return (directory / CARD).read_text()


def test_the_title_and_the_first_paragraph_say_what_it_is(tmp_path: Path) -> None:
    title, _, paragraph, *_ = written(tmp_path, HERE).splitlines()
    assert title == "# Image captioner, 4.9x smaller and 2.0x faster than dense"
    assert "tf_efficientnet_lite0 at 32 x 32 pixels" in paragraph
    assert paragraph.endswith(
        "CIDEr 0.480 (96.0% of dense), size 2.00 MB (4.9x smaller), latency 1.50 ms (2.0x faster)."
    )


def test_the_title_boasts_of_nothing_that_is_no_gain(tmp_path: Path) -> None:
    card = replace(HERE, metrics={"cider": 0.6, "size_mb": 12.0, "latency_ms": 2.95})
    assert written(tmp_path, card).startswith("# Image captioner\n")


def test_the_figures_stand_beside_dense(tmp_path: Path) -> None:
    text = written(tmp_path, HERE)
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert table[:6] == [
        "|  | this model | dense |  |",
        "| --- | --- | --- | --- |",
        "| CIDEr | 0.480 | 0.500 | 96.0% of dense |",
        "| size (MB) | 2.00 | 9.80 | 4.9x smaller |",
        "| latency (ms) | 1.50 | 3.00 | 2.0x faster (95% interval 1.25x to 2.50x) |",
        "| tokens a day | 0.00 |  |  |",
    ]
    assert "the 1000 images of the dev split" in text


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (TargetSettings(), "in onnxruntime with 1 thread and batch size 1,"),
        (TargetSettings(threads=4, batch_size=8), "with 4 threads and batch size 8,"),
    ],
    ids=["default", "wide"],
)
def test_the_card_says_where_it_was_measured(
    tmp_path: Path, target: TargetSettings, said: str
) -> None:
    text = written(tmp_path, replace(HERE, target=target))
    assert said in text
    assert "Made with autocomp " in text
    assert "onnxruntime 1." in text
    here = machine()
    assert all(one in text for one in (f"({here['cores']} cores", *here["instructions"]))


def test_steps_are_in_words_and_what_was_not_done_names_them(tmp_path: Path) -> None:
    skipped = (
        "train: 1 skipped: a.jpg: no such file",
        "steps.1.quantize: head: held at 32 bits",
        "steps.0.retrain: idle",
        "steps.1.quantize: stem_1: held at 32 bits",
    )
    text = written(tmp_path, replace(HERE, skipped=skipped))
    assert "1. retrain 20 steps" in text
    assert "2. store the weights of decoder.\\*\\_proj at 8 bits" in text
    told = text.partition("## What was not done\n\n")[2].splitlines()
    assert told[:3] == [
        "- train: 1 skipped: a.jpg: no such file",
        "- step 2, quantize: head, stem_1: held at 32 bits",
        "- step 1, retrain: idle",
    ]
    assert "What was not done" not in written(tmp_path, HERE)


def test_what_comes_from_data_is_no_markup(tmp_path: Path) -> None:
    text = written(tmp_path, HERE)
    row = "| a_1.jpg | a dog \\| a cat | a dog | Two dogs run \\<b\\>fast\\</b\\> |"
    assert row in text.splitlines()


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("two dogs, one ball", "two dogs, one ball"),
        ("dev_0001.png", "dev_0001.png"),
        ("_very_ *good*", "\\_very\\_ \\*good\\*"),
        ("[here](http://x)", "\\[here\\](http://x)"),
        ("`a` \\ ~b~ $c$ &lt; # d", "\\`a\\` \\\\ \\~b\\~ \\$c\\$ \\&lt; \\# d"),
        ("two\r\n\nlines", "two lines"),
    ],
)
def test_markup_is_escaped(text: str, safe: str) -> None:
    assert escaped(text) == safe


def test_the_dense_models_card_compares_it_with_nothing(tmp_path: Path) -> None:
    card = replace(HERE, policy=Policy(), metrics=DENSE)
    text = written(tmp_path, card)
    assert text.startswith("# Image captioner, dense\n")
    assert "| size (MB) | 9.80 |\n" in text
    assert "| image | dense | a person |" in text
    assert " of dense" not in text


def test_the_card_says_how_to_run_it_and_what_is_known_of_the_data(tmp_path: Path) -> None:
    text = written(tmp_path, replace(HERE, examples=()))
    needed = f'pip install "onnxruntime>={OLDEST}" numpy pillow'
    assert f"{needed}\npython caption.py photo.jpg\n" in text
    assert f"onnxruntime>={OLDEST}" in (requires("autocomp") or [])
    assert needed in (Path(__file__).parents[2] / "docs" / "shipping.md").read_text()
    assert "drawn" in text
    assert "## What it says" not in text
    data = {"kind": "unheard of", "image_size": 32}
    assert "## Data" not in written(tmp_path, replace(HERE, task={**TASK, "data": data}))


def test_every_kind_has_its_words() -> None:
    assert set(KINDS) == set(TASKS)
    assert {*DATA, "image_folder"} == {*captions.DATASETS, *labels.DATASETS}


@pytest.mark.parametrize("kind", ["flickr8k", "karpathy"])
def test_flickr8k_is_not_for_commerce_whatever_the_form(tmp_path: Path, kind: str) -> None:
    data = {"kind": kind, "image_size": 32}
    (_, told) = written(tmp_path, replace(HERE, task={**TASK, "data": data})).split("## Data\n\n")
    assert told.startswith("Flickr8k")
    assert "for non-commercial research" in told
