"""How sure it is that one model scores as it does beside another, from the examples of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 1000
AT_ONCE = 1_000_000
"""Examples drawn at a time, which bounds the memory: 20 bytes each."""

Interval = tuple[float, float]


class Paired(NamedTuple):
    """The ends of two intervals: of mean(ours) - mean(theirs), and of mean(ours) / mean(theirs).

    There is no ratio where a resample of theirs has a mean of 0 or less.
    """

    difference: Interval
    ratio: Interval | None


def paired_intervals(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Paired:
    """How `ours` and `theirs` (N,), scores of the same examples in one order, compare on average.

    Intervals at confidence `level` by the percentile bootstrap over the pairs: Efron, "Bootstrap
    methods", Annals of Statistics 1979; for translation Koehn, "Statistical significance tests",
    EMNLP 2004. They say how the comparison varies with the choice of examples, not with the seed of
    the training.
    """
    if not 0 < len(ours) == len(theirs):
        rule = "must be one each for at least one example"
        raise ValueError(f"scores: {rule}, but got {len(ours)} and {len(theirs)}")
    pairs = np.array([ours, theirs], dtype=float)  # (2, N)
    drawn = [block.mean(axis=2) for block in _resampled(pairs, resamples, seed)]
    our_means, their_means = np.concatenate(drawn, axis=1)  # (resamples,) each
    return Paired(
        difference=_middle(our_means - their_means, level),
        ratio=_middle(our_means / their_means, level) if (their_means > 0).all() else None,
    )


def _resampled(pairs: NDArray[np.float64], count: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """`count` draws of N of the N pairs with replacement, as blocks (2, B, N)."""
    source = np.random.default_rng(seed)
    size = pairs.shape[1]
    block = max(1, AT_ONCE // size)
    for start in range(0, count, block):
        rows = min(block, count - start)
        yield pairs[:, source.integers(size, size=(rows, size), dtype=np.int32)]


def _middle(values: NDArray[np.float64], level: float) -> Interval:
    """The percentiles between which the middle `level` of the values lie."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
