"""Every method gives an interval inside what was seen; they differ in what they give up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocomp.compress.ranges import BINS, RANGES, Histogram, entropy, minmax, mse, percentile


def seen(values: np.ndarray) -> Histogram:
    low, high = float(min(values.min(), 0)), float(max(values.max(), 0))
    return Histogram(low, high, np.histogram(values, BINS, (low, high))[0].astype(float))


def error(values: np.ndarray, low: float, high: float) -> float:
    """Mean squared error of rounding to 256 levels over [low, high]."""
    scale = (high - low) / 255
    codes = np.clip(np.round((values - low) / scale), 0, 255)
    return float(np.mean((codes * scale + low - values) ** 2))


@pytest.mark.parametrize("method", RANGES)
@settings(max_examples=10)
@given(st.integers(0, 99), st.floats(0.1, 100))
def test_a_range_lies_within_what_was_seen(method: str, seed: int, scale: float) -> None:
    histogram = seen(np.random.default_rng(seed).normal(0, scale, 1000))
    low, high = RANGES[method](histogram)
    assert histogram.low <= low < high <= histogram.high


def test_minmax_keeps_an_outlier_that_the_others_give_up() -> None:
    values = np.random.default_rng(0).normal(0, 1, 100_000)
    values[0] = 1000.0
    histogram = seen(values)
    assert minmax(histogram)[1] == 1000
    assert percentile(histogram)[1] < 10
    assert mse(histogram)[1] < 1000


@pytest.mark.parametrize("zeros", [0, 0.5, 0.9, 0.98], ids=["none", "half", "most", "all but few"])
@pytest.mark.parametrize("spread", ["normal", "laplace", "lognormal"])
def test_mse_errs_least(spread: str, zeros: float) -> None:
    generator = np.random.default_rng(1)
    values = getattr(generator, spread)(0, 1, 50_000)
    if zeros:  # as after a ReLU
        values = np.abs(values) * (generator.random(50_000) >= zeros)
    histogram = seen(values)
    best = error(values, *mse(histogram))
    assert best <= error(values, *minmax(histogram)) * 1.05
    assert best <= error(values, *percentile(histogram)) * 1.05


def test_entropy_keeps_what_is_evenly_spread_and_cuts_a_thin_tail() -> None:
    generator = np.random.default_rng(3)
    even = generator.uniform(-2, 2, 100_000)
    assert entropy(seen(even)) == pytest.approx((-2, 2), rel=0.05)
    tailed = np.concatenate([generator.normal(0, 1, 100_000), generator.uniform(80, 400, 20)])
    assert 2 < entropy(seen(tailed))[1] < 200


def test_percentile_cuts_one_in_ten_thousand() -> None:
    values = np.random.default_rng(2).normal(0, 1, 1_000_000)  # few of them to a bin at the ends
    low, high = percentile(seen(values))
    for cut in (values < low, values > high):
        assert cut.mean() == pytest.approx(0.5e-4, rel=0.1)
