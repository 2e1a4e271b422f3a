"""The paired bootstrap: its limits, its coverage, and that pairing is what makes it narrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocomp.evaluate.bootstrap import Interval, Paired, paired_intervals

score = st.integers(0, 10**7).map(lambda millionths: millionths / 1e6)  # as they are kept
scores = st.lists(score, min_size=1, max_size=30)


def noise(count: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=count)


def difference_interval(ours: Sequence[float], theirs: Sequence[float], **options: Any) -> Interval:
    return paired_intervals(ours, theirs, **options).difference


def width(ends: Interval) -> float:
    return ends[1] - ends[0]


@given(scores, st.floats(-5, 5))
@settings(deadline=None)
def test_a_constant_shift_is_known_exactly(ours: list[float], shift: float) -> None:
    ends = difference_interval(np.array(ours) + shift, ours, resamples=50)
    assert ends == pytest.approx((shift, shift), abs=1e-9)


@given(scores, st.data())
@settings(deadline=None)
def test_it_lies_between_the_smallest_and_the_largest_difference(
    ours: list[float], data: st.DataObject
) -> None:
    theirs = data.draw(st.lists(score, min_size=len(ours), max_size=len(ours)))
    differences = np.subtract(ours, theirs)
    low, high = difference_interval(ours, theirs, resamples=50)
    assert differences.min() - 1e-9 <= low <= high <= differences.max() + 1e-9


def test_models_that_are_equally_good_have_zero_inside() -> None:
    theirs = noise(200)
    ours = theirs + np.tile([0.5, -0.5], 100)
    low, high = difference_interval(ours, theirs)
    assert low < 0 < high
    assert low == pytest.approx(-high, abs=0.02)


def test_it_covers_the_true_difference_as_often_as_it_says() -> None:
    true, trials = 0.3, 300
    covered = 0
    for seed in range(trials):
        low, high = difference_interval(
            noise(60, seed) + true, np.zeros(60), resamples=400, seed=seed, level=0.9
        )
        covered += low <= true <= high
    assert 0.85 <= covered / trials <= 0.94


def test_it_is_that_of_the_normal_approximation_where_that_holds() -> None:
    differences = noise(2000) + 0.1
    margin = 1.96 * differences.std() / np.sqrt(2000)
    ends = difference_interval(differences, np.zeros(2000), resamples=4000)
    expected = (differences.mean() - margin, differences.mean() + margin)
    assert ends == pytest.approx(expected, abs=0.1 * margin)


def test_more_images_narrow_it_as_their_root() -> None:
    few, many = (width(difference_interval(noise(count), [0.0] * count)) for count in (100, 1600))
    assert many == pytest.approx(few / 4, rel=0.2)


def test_a_higher_level_widens_it() -> None:
    widths = [
        width(difference_interval(noise(50), [0.0] * 50, level=one)) for one in (0.5, 0.9, 0.99)
    ]
    assert widths == sorted(set(widths))


def test_what_is_hard_for_both_does_not_widen_it() -> None:
    theirs = noise(300, scale=5)
    ours = theirs + noise(300, seed=1, scale=0.1)
    paired, unpaired = difference_interval(ours, theirs), difference_interval(ours, theirs[::-1])
    assert width(paired) < width(unpaired) / 20


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=30), st.floats(0.1, 3))
@settings(deadline=None)
def test_a_constant_ratio_is_known_exactly(theirs: list[float], factor: float) -> None:
    found = paired_intervals(np.multiply(theirs, factor), theirs, resamples=50).ratio
    assert found == pytest.approx((factor, factor))


def test_a_small_share_of_a_varying_score_is_known_better_than_the_difference() -> None:
    theirs = 1 + noise(200).clip(-1, None)
    found = paired_intervals(0.1 * theirs, theirs)
    assert found.ratio == pytest.approx((0.1, 0.1))
    assert width(found.difference) > 0.1


@pytest.mark.parametrize("theirs", [[0.0, 0.0], [0.0, 1.0]], ids=["always", "in a resample"])
def test_there_is_no_share_of_nothing(theirs: list[float]) -> None:
    assert paired_intervals([1.0, 2.0], theirs).ratio is None


def test_of_a_model_beside_itself_nothing_varies() -> None:
    theirs = 3 + noise(50).clip(-2, 2)
    assert paired_intervals(theirs, theirs) == Paired((0.0, 0.0), (1.0, 1.0))


@pytest.mark.parametrize("at_once", [1, 1000, 10**6], ids=["rows", "blocks", "one block"])
def test_it_depends_on_the_seed_and_not_on_the_memory(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = difference_interval(noise(101), noise(101, seed=1), resamples=77, seed=4)
    monkeypatch.setattr("autocomp.evaluate.bootstrap.AT_ONCE", at_once)
    assert difference_interval(noise(101), noise(101, seed=1), resamples=77, seed=4) == expected
    assert difference_interval(noise(101), noise(101, seed=1), resamples=77, seed=5) != expected


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])], ids=["none", "other"])
def test_scores_must_be_paired(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"one each for at least one example, but got"):
        difference_interval(ours, theirs)
