"""How sure the difference between two models' scores is, from the examples both were scored on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 1000
AT_ONCE = 1_000_000
"""Examples drawn at a time, which bounds the memory: 12 bytes each."""

Interval = tuple[float, float]


def paired_interval(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """The ends of the interval of mean(`ours`) - mean(`theirs`), at confidence `level`.

    `ours` and `theirs` (N,) are scores of the same examples in the same order, in any unit. The
    percentile bootstrap of the paired differences: Efron, "Bootstrap methods", Annals of Statistics
    1979; for translation Koehn, "Statistical significance tests", EMNLP 2004. It says how the
    difference varies with the choice of examples, not with the seed of the training.
    """
    if not 0 < len(ours) == len(theirs):
        rule = "must be one each for at least one example"
        raise ValueError(f"scores: {rule}, but got {len(ours)} and {len(theirs)}")
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    means = np.concatenate(
        [drawn.mean(axis=1) for drawn in _resamples(differences, resamples, seed)]
    )
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _resamples(values: NDArray[np.float64], count: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """`count` draws of N of the N `values` with replacement, as blocks (B, N)."""
    source = np.random.default_rng(seed)
    size = len(values)
    block = max(1, AT_ONCE // size)
    for start in range(0, count, block):
        rows = min(block, count - start)
        yield values[source.integers(size, size=(rows, size), dtype=np.int32)]
