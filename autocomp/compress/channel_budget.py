"""Which channels go, given the scores of each group: pure arithmetic, no model."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from autocomp.policy import Scope

Choose = Callable[[Sequence[Tensor], Sequence[float], int], list[Tensor]]


def rounded_keep(size: int, removed: int, round_to: int) -> int:
    """What stays of `size` when `removed` should go: at least one, rounded up, at most all."""
    keep = max(1, size - removed)
    return min(size, -(-keep // round_to) * round_to)


def choose_local(scores: Sequence[Tensor], ratios: Sequence[float], round_to: int) -> list[Tensor]:
    """The lowest scores of each group, as many as its own ratio says.

    `scores` holds one (channels,) tensor a group and `ratios` one number in [0, 1); the result has
    the channels to remove, ascending, (removed,) int64 a group.
    """
    return [
        _lowest(values, len(values) - rounded_keep(len(values), _count(values, ratio), round_to))
        for values, ratio in zip(scores, ratios, strict=True)
    ]


def choose_global(scores: Sequence[Tensor], ratios: Sequence[float], round_to: int) -> list[Tensor]:
    """The channels below one threshold on scores divided by their group's mean.

    The threshold is the highest at which, every group rounded, no more channels go than the groups'
    ratios add up to. A group keeps at least `round_to` channels. Arguments as `choose_local`.
    """
    sizes = [len(values) for values in scores]
    budget = int(
        sum(size * ratio for size, ratio in zip(sizes, ratios, strict=True)) + 1e-9
    )  # a product such as 10 x 0.3 may fall just short
    normalised = torch.cat([values / values.mean().clamp_min(1e-12) for values in scores])
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    order = owner[normalised.argsort(stable=True)]  # the group of each channel, least wanted first

    def removed(below: int) -> list[int]:
        counts = torch.bincount(order[:below], minlength=len(sizes)).tolist()
        return [
            size - rounded_keep(size, count, round_to)
            for size, count in zip(sizes, counts, strict=True)
        ]

    below = bisect_right(range(len(order) + 1), budget, key=lambda n: sum(removed(n))) - 1
    return [_lowest(values, count) for values, count in zip(scores, removed(below), strict=True)]


SCOPES: dict[Scope, Choose] = {"local": choose_local, "global": choose_global}


def _count(scores: Tensor, ratio: float) -> int:
    return int(len(scores) * ratio + 1e-9)


def _lowest(scores: Tensor, count: int) -> Tensor:
    return scores.argsort(stable=True)[:count].sort().values
