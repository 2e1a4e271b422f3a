"""How metrics are written for people, with their units."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from autocomp.policy import Policy

TITLES = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "meteor": "METEOR",
    "size_mb": "size (MB)",
    "download_mb": "download (MB)",
    "latency_ms": "latency (ms)",
    "latency_ratio": "latency / dense",
    "latency_own_ms": "own latency (ms)",
    "mean_tokens": "mean length (tokens)",
    "params": "parameters",
    "nonzeros": "non-zero weights",
    "macs": "multiply-adds",
    "peak_rss_mb": "peak memory (MB)",
    "top_caption_share": "share of the top caption",
}


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
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".removesuffix(".")


def in_short(policy: Policy) -> str:
    """A policy in a few words; steps that change nothing are left out."""
    words = [SHORT[step.kind](step) for step in policy.steps]
    return ", ".join(word for word in words if word) or "nothing changed"


def changing(policy: Policy) -> Policy:
    """The policy without the steps that change nothing: a ratio of 0, 32 bits."""
    return Policy(steps=tuple(step for step in policy.steps if SHORT[step.kind](step)))


def _less(what: str) -> Callable[[Any], str]:
    def words(step: Any) -> str:
        ratios = _values(step.ratio)
        return f"{_range(ratios, '{:.0%}')} fewer {what}" if max(ratios) > 0 else ""

    return words


def _bits(step: Any) -> str:
    widths = _values(step.bits)
    return f"{'/'.join(f'{one:g}' for one in widths)} bits" if min(widths) < 32 else ""


SHORT: dict[str, Callable[[Any], str]] = {
    "prune_channels": _less("channels"),
    "prune_heads": _less("heads"),
    "prune_width": _less("hidden units"),
    "drop_layers": lambda step: f"keep {step.keep} of {step.layers}",
    "gamma_l1": lambda step: "gamma L1",
    "retrain": lambda step: f"retrain {step.steps}" if step.steps else "",
    "quantize": _bits,
}


def _values(value: Any) -> list[float]:
    """The different values of a number by unit, ascending."""
    values: Iterable[float] = value.values() if isinstance(value, dict) else [value]
    return sorted(set(values)) or [0.0]


def _range(values: list[float], form: str) -> str:
    first, last = form.format(values[0]), form.format(values[-1])
    return first if first == last else f"{first.removesuffix('%')}..{last}"
