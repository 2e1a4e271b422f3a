"""Policies in words, for people who choose between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autocomp.policy import (
    DropLayers,
    GammaL1,
    Policy,
    PruneChannels,
    PruneHeads,
    PruneWidth,
    Resize,
    Retrain,
)
from autocomp.rounding import FixedPoint, Quantize


def describe(policy: Policy) -> list[str]:
    """One phrase a step; a policy without steps is the dense model."""
    return [PHRASES[step.kind](step) for step in policy.steps] or ["dense, nothing changed"]


def _channels(step: PruneChannels) -> str:
    where = _where(step.layers)
    return f"remove {_percent(step.ratio)} of the channels of {where} ({step.criterion})"


def _heads(step: PruneHeads) -> str:
    return f"remove {_percent(step.ratio)} of the heads of {_where(step.layers)} ({step.criterion})"


def _width(step: PruneWidth) -> str:
    where = _where(step.layers)
    return f"remove {_percent(step.ratio)} of the hidden units of {where} ({step.criterion})"


def _depth(step: DropLayers) -> str:
    return f"keep {step.keep} of {step.layers} ({step.select})"


def _resize(step: Resize) -> str:
    return f"images of {step.image_size} pixels"


def _gamma(step: GammaL1) -> str:
    return (
        f"shrink the BatchNorm scales of {_where(step.layers)} by {step.strength:g} while training"
    )


def _retrain(step: Retrain) -> str:
    parts = [f"retrain {step.steps} steps at {step.lr:.2g}"]
    if step.loss == "features":
        return f"{parts[0]}, features pulled towards the dense model's"
    if step.distill:
        parts.append(f"{step.distill:.0%} of the loss from the dense model's logits")
    if step.hidden:
        parts.append(f"hidden states pulled towards the dense model's ({step.hidden:.2g})")
    return ", ".join(parts)


def _quantize(step: Quantize) -> str:
    where = f"the weights of {_where(step.layers)}"
    parts = [f"store {where} at {_one_or_range(step.bits)} bits"]
    if step.scheme == "affine":
        parts.append("with zero points of their own")
    if step.granularity != "auto":
        parts.append(f"a scale a {step.granularity}")
    if step.rounding == "compensated":
        parts.append("rounding compensated")
    if step.activation_bits == 32:
        parts.append("computed in fp32")
    if step.ranges != "minmax":
        parts.append(f"ranges of activations by {step.ranges}")
    if step.qat:
        parts.append("trained through the rounding")
    return ", ".join(parts)


def _fixed_point(step: FixedPoint) -> str:
    return (
        f"hold {_where(step.layers)} in fixed point ({step.method}): parameters at "
        f"{_one_or_range(step.bits)} bits, activations at {step.activation_bits}, BatchNorm "
        f"statistics at {step.batch_norm_bits}"
    )


PHRASES: dict[str, Callable[[Any], str]] = {
    "prune_channels": _channels,
    "prune_heads": _heads,
    "prune_width": _width,
    "drop_layers": _depth,
    "resize": _resize,
    "gamma_l1": _gamma,
    "retrain": _retrain,
    "quantize": _quantize,
    "fixed_point": _fixed_point,
}


def _where(patterns: tuple[str, ...]) -> str:
    return "everything" if patterns == ("**",) else " and ".join(patterns)


def _percent(ratio: float | dict[str, float]) -> str:
    if isinstance(ratio, dict):
        low, high = min(ratio.values(), default=0.0), max(ratio.values(), default=0.0)
        return f"{low:.0%} to {high:.0%}" if low != high else f"{low:.0%}"
    return f"{ratio:.0%}"


def _one_or_range(bits: int | dict[str, int]) -> str:
    if not isinstance(bits, dict):
        return str(bits)
    widths = sorted(set(bits.values()) or {32})
    return " and ".join(map(str, widths))
