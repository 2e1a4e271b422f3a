"""How metrics, with their units, and policies are written for people."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from autocomp.policy import Policy, Retrain
from autocomp.rounding import Quantize
from autocomp.space.metrics import METRICS

TITLES = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "meteor": "METEOR",
    "top_1": "top-1",
    "top_5": "top-5",
    "size_mb": "size (MB)",
    "download_mb": "download (MB)",
    "latency_ms": "latency (ms)",
    "latency_ratio": "latency / dense",
    "latency_ratio_low": "latency / dense, low end",
    "latency_ratio_high": "latency / dense, high end",
    "latency_p90_ms": "latency, p90 (ms)",
    "latency_own_ms": "own latency (ms)",
    "read_ms": "reading (ms)",
    "encoder_ms": "encoder (ms)",
    "decoder_step_ms": "decoder step (ms)",
    "model_ms": "model (ms)",
    "rest_ms": "rest of latency (ms)",
    "mean_tokens": "mean length (tokens)",
    "params": "parameters",
    "nonzeros": "non-zero weights",
    "macs": "multiply-adds",
    "peak_rss_mb": "peak memory (MB)",
    "top_caption_share": "share of the top caption",
    "top_class_share": "share of the top class",
}

MEANINGS = {
    "bleu_1": "Share of matched words (Papineni et al., 2002).",
    "bleu_2": "Matched runs of up to 2 words.",
    "bleu_3": "Matched runs of up to 3 words.",
    "bleu_4": "Matched runs of up to 4 words.",
    "rouge_l": "Longest common subsequence (Lin, 2004).",
    "cider": "TF-IDF weighted n-grams (Vedantam et al., 2015).",
    "top_1": "Share of images whose likeliest class is theirs.",
    "top_5": "Share of images whose class is among the five likeliest; of more than five.",
    "meteor": "Aligned words, stems and synonyms (Denkowski and Lavie, 2014); needs Java.",
    "size_mb": "10^6 bytes of the files that inference opens.",
    "download_mb": "10^6 bytes of the packed weights and configuration.",
    "latency_ms": "Latency ratio x the dense model's latency; from file to prediction.",
    "latency_ratio": "Time beside the dense model, over the same number of steps.",
    "latency_p90_ms": "90th percentile of single ratios x the dense model's latency.",
    "latency_own_ms": "Time of an inference that ends when the model says so.",
    "read_ms": "Of latency_ms: decoding and scaling the photo.",
    "encoder_ms": "Of latency_ms: the encoder.",
    "decoder_step_ms": "Of latency_ms: the decoder, for one token.",
    "model_ms": "Of latency_ms: the model of a task that has but one graph.",
    "rest_ms": "Of latency_ms: all between reading and the graphs, such as choosing tokens.",
    "mean_tokens": "Steps of a prediction.",
    "params": "Parameters.",
    "nonzeros": "Parameters that are not zero.",
    "macs": "Multiply-accumulates of an inference.",
    "peak_rss_mb": "10^6 bytes of memory of a fresh process that runs it.",
    "top_caption_share": "Share of the most frequent caption; near 1 where a model collapsed.",
    "top_class_share": "Share of the most frequent class; near 1 where a model collapsed.",
}
"""What each metric is, in a line."""

LESS_AND_MORE = {
    "size_mb": ("smaller", "larger"),
    "download_mb": ("smaller", "larger"),
    "latency_ms": ("faster", "slower"),
    "latency_p90_ms": ("faster", "slower"),
    "read_ms": ("faster", "slower"),
    "encoder_ms": ("faster", "slower"),
    "decoder_step_ms": ("faster", "slower"),
    "model_ms": ("faster", "slower"),
    "rest_ms": ("faster", "slower"),
    "params": ("fewer", "more"),
    "nonzeros": ("fewer", "more"),
    "macs": ("fewer", "more"),
    "peak_rss_mb": ("less", "more"),
}
"""What a cost is called that is lower than another, and one that is higher."""
SHARES = ("top_caption_share", "top_class_share")
"""Metrics that are said in percent."""
NOTHING = 5e-5
"""Smaller than this, a metric is noise: a collapsed model's CIDEr of 5.4e-10, say."""


def title(metric: str) -> str:
    """A metric's name with its unit."""
    return TITLES.get(metric, metric.replace("_", " "))


def name_and_unit(metric: str) -> tuple[str, str]:
    """A metric's name and its unit, which may be none: ("size", "MB"), ("CIDEr", "")."""
    name, _, unit = title(metric).partition(" (")
    return name, unit.removesuffix(")")


def number(value: float) -> str:
    """Three significant digits, and all digits before the point; millions and more by letter."""
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{float(f'{value / size:.3g}'):g}{letter}"
    if abs(value) < NOTHING:
        return "0.00"
    # 999.5 has four digits once it is rounded
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".removesuffix(".")


def compared(metric: str, value: float, dense: float | None) -> str:
    """How a metric stands to the dense model's: "97.2% of dense", "4.9x smaller", "3% slower".

    Nothing for a metric of which neither less nor more is better, or without a dense value above 0.
    """
    if dense is None or dense <= 0:
        return ""
    if METRICS.get(metric) == "maximize":
        return f"{value / dense:.1%} of dense"
    if metric not in LESS_AND_MORE or value <= 0:
        return ""
    word = LESS_AND_MORE[metric][value > dense]
    times = max(value, dense) / min(value, dense)
    percent = f"{abs(value / dense - 1):.0%}"
    if percent == "0%":
        return "the same"
    return f"{times:.1f}x {word}" if times >= 1.1 else f"{percent} {word}"


def in_short(policy: Policy) -> str:
    """A policy in a few words; steps that change nothing are left out, equal ones said once."""
    words = (_part(step) + step_in_short(step) for step in changing(policy).steps)
    return ", ".join(word for word, _ in itertools.groupby(words)) or "nothing changed"


def step_in_short(step: Any) -> str:
    """What a step does, wherever it does it; nothing if it changes nothing."""
    return SHORT[step.kind](step)


def changing(policy: Policy) -> Policy:
    """The policy without the steps that change nothing: a ratio of 0, 32 bits.

    What a retrain of no steps leaves to be rounded at once is not rounded by training.
    """
    steps: list[Any] = []
    retrains = False
    for step in reversed(policy.steps):
        if isinstance(step, Retrain):
            retrains = step.steps > 0
        is_idle = isinstance(step, Quantize) and step.qat and not retrains
        steps.append(step.model_copy(update={"qat": False}) if is_idle else step)
    # a retrain of no steps may be what a step must be followed by
    return Policy.model_construct(steps=tuple(one for one in steps[::-1] if step_in_short(one)))


def _part(step: Any) -> str:
    """The layers that a step rounds, each by its own name, unless it rounds all."""
    if step.kind not in ("quantize", "fixed_point") or tuple(step.layers) in (("**",), ("*",)):
        return ""
    return "+".join(_own_name(pattern) for pattern in step.layers) + " "


def _own_name(pattern: str) -> str:
    """The last name in a pattern, with what holds it if it is a number: "blocks.4"."""
    names = [name for name in pattern.split(".") if not set(name) & set("*?[")]
    is_numbered = bool(names) and names[-1].isdigit()
    return ".".join(names[-2 if is_numbered else -1 :]) or pattern


def _less(what: str) -> Callable[[Any], str]:
    def words(step: Any) -> str:
        ratios = _values(step.ratio)
        return f"{_range(ratios, '{:.0%}')} fewer {what}" if max(ratios) > 0 else ""

    return words


def _bits(step: Any) -> str:
    widths = _values(step.bits)
    if min(widths) >= 32:
        return ""
    how = {
        "compensated": step.rounding == "compensated",
        "affine": step.scheme == "affine",
        f"by {step.granularity}": step.granularity in ("channel", "tensor"),
        f"by {step.group_size}": step.granularity in ("auto", "group")
        and step.group_size != Quantize.model_fields["group_size"].default,
        f"{step.ranges} ranges": step.ranges != "minmax",
        "weights alone": step.activation_bits == 32,
        "trained": step.qat,
    }
    words = [f"{_slashed(widths)} bits", *(word for word, holds in how.items() if holds)]
    return " ".join(words)


def _fixed(step: Any) -> str:
    widths = _values(step.bits)
    others = {"activations": step.activation_bits, "norms": step.batch_norm_bits}
    if min(*widths, *others.values()) == 32:
        return ""
    told = [f"{name} {bits}" for name, bits in others.items() if bits < 32]
    return f"fixed point {_slashed(widths)} bits ({', '.join([step.method, *told])})"


def _slashed(widths: Iterable[float]) -> str:
    return "/".join(f"{one:g}" for one in widths)


def _retrained(step: Any) -> str:
    what = "retrain features" if step.loss == "features" else "retrain"
    return f"{what} {step.steps}" if step.steps else ""


SHORT: dict[str, Callable[[Any], str]] = {
    "prune_channels": _less("channels"),
    "prune_heads": _less("heads"),
    "prune_width": _less("hidden units"),
    "drop_layers": lambda step: f"keep {step.keep} of {step.layers}",
    "resize": lambda step: f"{step.image_size} pixels",
    "gamma_l1": lambda step: "gamma L1",
    "retrain": _retrained,
    "quantize": _bits,
    "fixed_point": _fixed,
}


def _values(value: Any) -> list[float]:
    """The different values of a number by unit, ascending."""
    values: Iterable[float] = value.values() if isinstance(value, dict) else [value]
    return sorted(set(values)) or [0.0]


def _range(values: list[float], form: str) -> str:
    first, last = form.format(values[0]), form.format(values[-1])
    return first if first == last else f"{first.removesuffix('%')}..{last}"
