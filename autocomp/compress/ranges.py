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


@dataclass(frozen=True)
class Histogram:
    """How often values fell into each of `counts.size` equal bins of [low, high]."""

    low: float
    high: float
    counts: NDArray[np.float64]

    @property
    def centres(self) -> NDArray[np.floating]:
        width = (self.high - self.low) / self.counts.size
        return self.low + width * (np.arange(self.counts.size) + 0.5)


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


def mse(seen: Histogram) -> tuple[float, float]:
    """The range with the least mean squared error, of rounding and cutting off together."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    high = min((high * one for one in CANDIDATES), key=lambda end: _error(seen, low, end))
    low = min((low * one for one in CANDIDATES), key=lambda end: _error(seen, end, high))
    return low, high


RANGES: dict[str, Callable[[Histogram], tuple[float, float]]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
}


def _error(seen: Histogram, low: float, high: float) -> float:
    """Squared error of 8-bit codes over [low, high]: uniform rounding inside, distance outside."""
    values = seen.centres
    rounding = ((high - low) / (LEVELS - 1)) ** 2 / 12
    outside = values - np.clip(values, low, high)
    return float(np.sum(seen.counts * np.where(outside == 0, rounding, outside**2)))
