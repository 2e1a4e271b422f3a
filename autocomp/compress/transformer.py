"""Remove attention heads and hidden units: rows of some matrices, columns of others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from autocomp.errors import PolicyError, nearest
from autocomp.fields import value_for
from autocomp.models.transformer import Attention
from autocomp.models.units import HiddenUnits, UnitEnd
from autocomp.patterns import matching
from autocomp.policy import PruneHeads, PruneWidth

Layer = TypeVar("Layer", bound=nn.Module)
Ends = Sequence[UnitEnd]


def l1(ends: Ends, generator: torch.Generator) -> Tensor:
    """Sum of absolute weights of each unit (units,) (1608.08710)."""
    return _by_unit(ends, lambda weight: weight.abs())


def l2(ends: Ends, generator: torch.Generator) -> Tensor:
    """Euclidean norm of all weights of each unit (units,)."""
    return _by_unit(ends, lambda weight: weight.square()).sqrt()


def taylor(ends: Ends, generator: torch.Generator) -> Tensor:
    """abs(sum of weight x gradient) of each unit (units,), the change in loss (1906.10771)."""

    def change(weight: Tensor) -> Tensor:
        assert weight.grad is not None
        return weight * weight.grad

    return _by_unit(ends, change).abs()


def random(ends: Ends, generator: torch.Generator) -> Tensor:
    """Uniform scores (units,): the control every criterion should beat."""
    return torch.rand(ends[0].units, generator=generator)


UNIT_CRITERIA: dict[str, Callable[[Ends, torch.Generator], Tensor]] = {
    "l1": l1,
    "l2": l2,
    "taylor": taylor,
    "random": random,
}


def prune_heads_(model: nn.Module, step: PruneHeads, seed: int = 0) -> list[str]:
    """Remove `ratio` of the heads of each matched attention; returns what was skipped, and why.

    A head's score is the sum over its `head_dim` units. `taylor` reads gradients off the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    skipped = []
    known = {name: one for name, one in model.named_modules() if isinstance(one, Attention)}
    for name, module in _matched(known, step).items():
        heads, width = module.heads, module.head_dim
        ratio = value_for(name, step.ratio, 0.0)
        keep = max(1, heads - int(ratio * heads + 1e-9))
        if keep == heads:
            skipped += [f"{name}: {ratio:g} of {heads} heads is less than one"] if ratio else []
            continue
        rows = [UnitEnd(projection, 0) for projection in (module.q, module.k, module.v)]
        scores = UNIT_CRITERIA[step.criterion]([*rows, UnitEnd(module.o, 1)], generator)
        kept_heads = _top(scores.view(heads, width).sum(dim=1), keep)
        kept = (kept_heads[:, None] * width + torch.arange(width)).flatten()
        for projection in (module.q, module.k, module.v):
            keep_rows_(projection, kept)
        keep_columns_(module.o, kept)
    return skipped


def prune_width_(model: nn.Module, step: PruneWidth, seed: int = 0) -> list[str]:
    """Remove `ratio` of the hidden units of each matched block; returns what was skipped.

    The number kept is rounded up to a multiple of `round_to`.
    """
    generator = torch.Generator().manual_seed(seed)
    skipped = []
    known = {name: one for name, one in model.named_modules() if isinstance(one, HiddenUnits)}
    for name, module in _matched(known, step).items():
        ends = module.unit_ends()
        width = ends[0].units
        ratio = value_for(name, step.ratio, 0.0)
        groups = math.ceil(width * (1 - ratio) / step.round_to - 1e-9)
        keep = min(width, max(1, groups) * step.round_to)
        if keep == width:
            rounded = f"{ratio:g} of {width} units, rounded to {step.round_to}, removes none"
            skipped += [f"{name}: {rounded}"] if ratio else []
            continue
        kept = _top(UNIT_CRITERIA[step.criterion](ends, generator), keep)
        for linear, axis, blocks in ends:
            places = (torch.arange(blocks)[:, None] * width + kept).flatten()
            (keep_columns_ if axis else keep_rows_)(linear, places)
    return skipped


def keep_rows_(linear: nn.Linear, kept: Tensor) -> None:
    """Keep the outputs `kept` (indices) of a linear layer, in place."""
    linear.weight = nn.Parameter(linear.weight.detach()[kept].clone())
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[kept].clone())
    linear.out_features = len(kept)


def keep_columns_(linear: nn.Linear, kept: Tensor) -> None:
    """Keep the inputs `kept` (indices) of a linear layer, in place."""
    linear.weight = nn.Parameter(linear.weight.detach()[:, kept].clone())
    linear.in_features = len(kept)


def _matched(known: Mapping[str, Layer], step: PruneHeads | PruneWidth) -> dict[str, Layer]:
    names = matching(known, step.layers, step.exclude)
    if not names:
        close = nearest(step.layers[0], known)
        raise PolicyError(
            f"{step.kind}.layers: must match a layer it can act on, but {list(step.layers)} "
            f"matches none; nearest: {', '.join(close) or 'none'}"
        )
    return {name: known[name] for name in names}


def _by_unit(ends: Ends, value: Callable[[Tensor], Tensor]) -> Tensor:
    """The sum of `value` over all weights of each unit (units,)."""
    sums = [
        value(linear.weight).detach().sum(dim=1 - axis).view(blocks, -1)
        for linear, axis, blocks in ends
    ]
    return torch.cat(sums).sum(dim=0)


def _top(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest scores, in ascending order; ties go to the lower index."""
    order = torch.argsort(scores, descending=True, stable=True)
    return order[:count].sort().values
