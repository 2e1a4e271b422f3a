"""Ranges of activations: from what calibration saw to the interval that 8 bits divide.

Methods as in "Integer Quantization for Deep Learning Inference" (2004.09602).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 2048
LEVELS = 256
TAIL = 1e-4
"""The share of values that `percentile` gives up, half at each end."""
CANDIDATES = np.linspace(1.0, 0.2, 81)
"""The fractions of an end of the range that `mse` tries."""

UNSEEN = 1e-9
"""The share of values that `entropy` supposes where no code would tell of any."""


@dataclass(frozen=True)
class Histogram:
    """How often values fell into each of `counts.size` equal bins of [low, high], zero included."""

    low: float
    high: float
    counts: NDArray[np.float64]

    @property
    def centres(self) -> NDArray[np.floating]:
        width = (self.high - self.low) / self.counts.size
        return self.low + width * (np.arange(self.counts.size) + 0.5)

    @property
    def zero(self) -> int:
        """The bin that zero falls into, which has a code of its own in every range."""
        place = int(-self.low / (self.high - self.low) * self.counts.size)
        return min(place, self.counts.size - 1)


def minmax(seen: Histogram) -> tuple[float, float]:
    """All that was seen: no value is cut off, and an outlier makes every step wide."""
    return seen.low, seen.high


def percentile(seen: Histogram) -> tuple[float, float]:
    """All but one value in ten thousand, half of them at each end."""
    reached = np.cumsum(seen.counts) / seen.counts.sum()
    edges = np.linspace(seen.low, seen.high, seen.counts.size + 1)
    low = edges[np.searchsorted(reached, TAIL / 2, side="right")]
    high = edges[np.searchsorted(reached, 1 - TAIL / 2) + 1]
    return float(low), float(high)


def beyond(seen: Histogram, share: float) -> tuple[float, float]:
    """The range about zero beyond which the fraction `share` of the values lies."""
    sizes = np.abs(seen.centres)
    order = np.argsort(sizes)
    reached = np.cumsum(seen.counts[order]) / seen.counts.sum()
    bound = float(sizes[order][np.searchsorted(reached, 1 - share)])
    return max(seen.low, -bound), min(seen.high, bound)


def entropy(seen: Histogram) -> tuple[float, float]:
    """The range whose codes tell most of how values are spread (KL divergence, as in TensorRT).

    Zero has a code of its own, however many values it is: of these no more are counted than beside.
    """
    counts = seen.counts.copy()
    beside = counts[max(seen.zero - 1, 0) : seen.zero + 2]
    counts[seen.zero] = min(counts[seen.zero], np.sort(beside)[-2])
    return _narrowed(Histogram(seen.low, seen.high, counts), _divergence)


def mse(seen: Histogram) -> tuple[float, float]:
    """The range with the least mean squared error, of rounding and cutting off together."""
    return _narrowed(seen, _error)


RANGES: dict[str, Callable[[Histogram], tuple[float, float]]] = {
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}


def _narrowed(
    seen: Histogram, badness: Callable[[Histogram, float, float], float]
) -> tuple[float, float]:
    """The least bad range around zero: first its high end is moved inwards, then its low end."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    high = min((high * one for one in CANDIDATES), key=lambda end: badness(seen, low, end))
    low = min((low * one for one in CANDIDATES), key=lambda end: badness(seen, end, high))
    return low, high


def _divergence(seen: Histogram, low: float, high: float) -> float:
    """KL(P || Q) over the bins inside [low, high].

    P has what lies outside in its outermost bins. Q spreads what falls on each of the levels, but
    nothing from outside, evenly over the bins of that level which are not empty.
    """
    inside = (seen.centres >= low) & (seen.centres <= high)
    own, centres = seen.counts[inside], seen.centres[inside]
    if not own.any():
        return float("inf")
    reference = own.copy()
    reference[0] += seen.counts[seen.centres < low].sum()
    reference[-1] += seen.counts[seen.centres > high].sum()
    level = np.minimum(((centres - low) / (high - low) * LEVELS).astype(int), LEVELS - 1)
    total = np.bincount(level, own, LEVELS)[level]
    filled = np.bincount(level, own > 0, LEVELS)[level]
    spread = np.where(own > 0, total / np.maximum(filled, 1), 0.0)
    present = reference > 0
    p = reference[present] / reference.sum()
    q = np.maximum(spread[present] / spread.sum(), UNSEEN)
    return float(np.sum(p * np.log(p / q)))


def _error(seen: Histogram, low: float, high: float) -> float:
    """Squared error of 8-bit codes over [low, high]: uniform rounding inside, distance outside.

    Zeros, of which there are many after a ReLU, have their code.
    """
    values = seen.centres
    rounding = ((high - low) / (LEVELS - 1)) ** 2 / 12
    outside = values - np.clip(values, low, high)
    errors = np.where(outside == 0, rounding, outside**2)
    errors[seen.zero] = 0
    return float(np.sum(seen.counts * errors))
