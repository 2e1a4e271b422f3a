from __future__ import annotations

import csv
import io
import itertools
import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocomp.evaluate.bootstrap import Paired
from autocomp.policy import Policy, Quantize
from autocomp.space.objectives import Bound, Objective
from autocomp.study.front import Front, Member, better_dense, hypervolume, non_dominated

DIRECTIONS = st.lists(st.sampled_from(["maximize", "minimize"]), min_size=1, max_size=4)


def points_for(dimensions: int, largest: int = 12) -> st.SearchStrategy:
    values = st.integers(-1, 6).map(lambda value: value / 4)  # few values, so that ties occur
    return st.lists(st.tuples(*[values] * dimensions), max_size=largest)


CASES = DIRECTIONS.flatmap(lambda ways: st.tuples(st.just(ways), points_for(len(ways))))


def dominates(one, other, directions):
    pairs = [
        (a, b) if way == "maximize" else (-a, -b)
        for a, b, way in zip(one, other, directions, strict=True)
    ]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def inclusion_exclusion(points, directions):
    gains = [
        [
            value if way == "maximize" else 1 - value
            for value, way in zip(one, directions, strict=True)
        ]
        for one in points
    ]
    gains = [one for one in gains if min(one) > 0]
    total = 0.0
    for count in range(1, len(gains) + 1):
        for chosen in itertools.combinations(gains, count):
            total += (-1) ** (count + 1) * math.prod(map(min, zip(*chosen, strict=True)))
    return total


@given(CASES)
def test_non_dominated_equals_brute_force(case):
    directions, points = case
    expected = [
        index
        for index, one in enumerate(points)
        if not any(dominates(other, one, directions) for other in points)
    ]
    assert non_dominated(points, directions) == expected


@given(DIRECTIONS.flatmap(lambda ways: st.tuples(st.just(ways), points_for(len(ways), 7))))
@settings(deadline=None)
def test_hypervolume_equals_inclusion_exclusion(case):
    directions, points = case
    assert hypervolume(points, directions) == pytest.approx(inclusion_exclusion(points, directions))


@pytest.mark.parametrize("dimensions", [2, 3, 5])
def test_hypervolume_equals_monte_carlo(dimensions):
    rng = np.random.default_rng(dimensions)
    points = rng.random((25, dimensions))
    samples = rng.random((40_000, 1, dimensions))
    share = (samples >= points).all(axis=2).any(axis=1).mean()
    assert hypervolume(points.tolist(), ["minimize"] * dimensions) == pytest.approx(share, abs=0.01)


@given(CASES)
@settings(deadline=None)
def test_only_the_front_adds_to_the_hypervolume(case):
    directions, points = case
    front = [points[index] for index in non_dominated(points, directions)]
    assert hypervolume(front, directions) == pytest.approx(hypervolume(points, directions))


@pytest.mark.parametrize(
    ("ratios", "volume"),
    [
        ([], 0.0),
        ([(1.0, 1.0, 1.0)], 0.0),
        ([(0.9, 0.5, 0.5)], 0.225),
        ([(0.9, 0.5, 1.5)], 0.0),
        ([(1.1, 0.0, 0.0)], 1.1),
        ([(1.0, 0.5, 0.5), (0.5, 0.25, 0.25)], 0.25 + 0.5 * (0.5625 - 0.25)),
    ],
    ids=["none", "dense", "half", "slower-than-dense", "better-than-dense", "two"],
)
def test_hypervolume_of_known_fronts(ratios, volume):
    assert hypervolume(ratios, ["maximize", "minimize", "minimize"]) == pytest.approx(volume)


def test_hypervolume_of_300_points_is_quick():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(300, 3))
    sphere = np.abs(directions) / np.linalg.norm(directions, axis=1, keepdims=True)
    start = time.perf_counter()
    hypervolume((1 - sphere).tolist(), ["minimize"] * 3)
    assert time.perf_counter() - start < 1.0


OBJECTIVES = (
    Objective("cider", "maximize"),
    Objective("size_mb", "minimize", at_most=Bound(0.5, of_dense=True)),
    Objective("peak_rss_mb", at_most=Bound(100)),
)
DENSE = {"cider": 1.0, "size_mb": 10.0, "peak_rss_mb": 90.0}


def front_of(*metrics: dict[str, float]) -> Front:
    members = [
        Member(number, Policy(steps=(Quantize(layers=f"layer{number}", bits=8),)), one)
        for number, one in enumerate(metrics)
    ]
    return Front.of(members, OBJECTIVES, DENSE, None, {"seed": 0})


def test_the_front_holds_feasible_points_only():
    front = front_of(
        DENSE,
        {"cider": 0.9, "size_mb": 5.0, "peak_rss_mb": 100.0},
        {"cider": 0.8, "size_mb": 4.0, "peak_rss_mb": 100.1},
        {"cider": 0.7, "size_mb": 4.5, "peak_rss_mb": 50.0},
        {"cider": 0.6, "size_mb": 4.6, "peak_rss_mb": 50.0},
    )
    assert [one.trial for one in front.members] == [1, 3]
    assert front.hypervolume == pytest.approx(0.9 * 0.5 + 0.7 * 0.05)


def test_json_has_exactly_these_keys():
    front = front_of({"cider": 0.9, "size_mb": 5.0, "peak_rss_mb": 100.0})
    content = json.loads(json.dumps(front.to_json()))
    assert list(content) == [
        "dense",
        "control",
        "front",
        "hypervolume",
        "objectives",
        "provenance",
    ]
    assert content["dense"] == {"metrics": DENSE}
    assert content["control"] is None
    assert content["objectives"]["size_mb"] == {"direction": "minimize", "at_most": "0.5*dense"}
    assert list(content["front"][0]) == ["trial", "policy_id", "policy", "metrics", "intervals"]
    assert content["front"][0]["intervals"] == {}  # of a study that kept no predictions
    assert content["front"][0]["metrics"] == front.members[0].metrics
    assert Policy.model_validate(content["front"][0]["policy"]) == front.members[0].policy


def test_csv_has_a_row_a_member_with_the_objectives_first():
    front = front_of(
        {"cider": 0.9, "size_mb": 5.0, "peak_rss_mb": 100.0, "macs": 1.0},
        {"cider": 0.8, "size_mb": 4.0, "peak_rss_mb": 10.0},
    )
    rows = list(csv.reader(io.StringIO(front.to_csv())))
    assert rows[0] == ["trial", "policy_id", "cider", "size_mb", "peak_rss_mb", "macs"]
    assert [row[0] for row in rows[1:]] == ["0", "1"]
    assert rows[2][-1] == ""


def test_what_is_not_on_the_front_stands_beside_it_when_it_is_asked_for():
    best, beaten = (Member(number, Policy(), one) for number, one in ((4, FASTER), (2, SLOWER)))
    front = Front.of([best, beaten], OBJECTIVES, DENSE, None, {})
    assert front.members == (best,)
    assert "others" not in front.to_json()
    assert "on_front" not in front.to_csv()
    whole = replace(front, others=(beaten,))
    assert [one["trial"] for one in whole.to_json()["others"]] == [2]
    rows = list(csv.DictReader(io.StringIO(whole.to_csv())))
    assert [(row["trial"], row["on_front"]) for row in rows] == [("2", "no"), ("4", "yes")]
    assert whole.hypervolume == front.hypervolume


@pytest.mark.parametrize("value", [0.0, -1.0], ids=["zero", "negative"])
def test_no_hypervolume_without_a_positive_dense_value(value):
    dense = {**DENSE, "cider": value}
    assert Front.of([], OBJECTIVES, dense, None, {}).hypervolume is None


def test_a_share_of_dense_is_of_the_better_of_dense_and_control():
    dense, control = {"cider": 1.0, "size_mb": 4.0}, {"cider": 1.2, "size_mb": 3.9}
    assert better_dense(dense, control) == {"cider": 1.2, "size_mb": 4.0}
    assert better_dense(dense, None) == dense
    objectives = [
        Objective("cider", "maximize", at_least=Bound(0.95, of_dense=True)),
        Objective("size_mb", "minimize"),
    ]
    close = Member(5, Policy(), {"cider": 1.1, "size_mb": 2.0})
    found = Front.of([close], objectives, dense, control, {})
    assert found.members == ()
    assert Front.of([close], objectives, dense, None, {}).members == (close,)


FASTER = {"cider": 0.9, "size_mb": 5.0, "peak_rss_mb": 10.0}
SLOWER = {"cider": 0.8, "size_mb": 5.5, "peak_rss_mb": 10.0}
SMALLER = {"cider": 0.6, "size_mb": 4.0, "peak_rss_mb": 10.0}
INTERVALS = {
    1: {"cider": {"dense": Paired((0.1, 0.3), (1.1, 1.3))}},
    2: {
        "cider": {
            "dense": Paired((-0.15, -0.05), (0.86, 0.94)),
            "control": Paired((-0.36, -0.2400001), (0.71, 0.79)),
        }
    },
}


def compared(control: dict[str, float] | None) -> Front:
    members = [Member(number, Policy(), one) for number, one in ((2, FASTER), (3, SMALLER))]
    return replace(Front.of(members, OBJECTIVES, DENSE, control, {}), intervals=INTERVALS)


def test_json_and_csv_hold_the_intervals_that_are_known():
    front = compared(DENSE | {"cider": 1.2})
    content = json.loads(json.dumps(front.to_json()))
    assert content["control"]["intervals"] == {"cider": {"dense": [0.1, 0.3]}}
    assert [one["intervals"] for one in content["front"]] == [
        {"cider": {"dense": [-0.15, -0.05], "control": [-0.36, -0.24]}},
        {},
    ]
    rows = list(csv.DictReader(io.StringIO(front.to_csv())))
    assert list(rows[0])[-4:] == [
        "cider_minus_dense_low",
        "cider_minus_dense_high",
        "cider_minus_control_low",
        "cider_minus_control_high",
    ]
    assert list(rows[0].values())[-4:] == ["-0.15", "-0.05", "-0.36", "-0.24"]
    assert list(rows[1].values())[-4:] == [""] * 4


@pytest.mark.parametrize(
    ("control", "trial", "share"),
    [
        (None, 2, (0.86, 0.94)),
        (DENSE | {"cider": 0.9}, 2, (0.86, 0.94)),
        (DENSE | {"cider": 1.2}, 2, (0.71, 0.79)),
        (DENSE | {"cider": 0.9}, 1, (1.1, 1.3)),
        (DENSE | {"cider": 1.2}, 1, None),
        (DENSE | {"cider": 1.2}, 3, None),
    ],
    ids=["no control", "worse", "better", "worse, itself", "better, itself", "no predictions"],
)
def test_the_interval_of_a_share_is_against_what_it_is_a_share_of(control, trial, share):
    assert compared(control).share_interval(trial, "cider") == share
