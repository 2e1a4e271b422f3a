from __future__ import annotations

import math

import pytest
from fronts import BOUNDED, CONTROL, DENSE, drawn_study, made_front

from autocomp.errors import StudyError
from autocomp.report.panels import (
    CONTROL as CONTROL_KIND,
)
from autocomp.report.panels import (
    DENSE as DENSE_KIND,
)
from autocomp.report.panels import (
    FRONT,
    OTHER,
    OTHER_FRONT,
    OUT_OF_BOUNDS,
    STOPPED,
    panels_of,
)


def axes(objectives, **named):
    front, results = drawn_study(objectives=objectives)
    return [(panel.x, panel.y) for panel in panels_of(front, results, **named)]


UP, DOWN = "maximize", "minimize"


@pytest.mark.parametrize(
    ("objectives", "named", "expected"),
    [
        (
            {"cider": UP, "size_mb": DOWN, "latency_ms": DOWN},
            {},
            [("size_mb", "cider"), ("latency_ms", "cider")],
        ),
        ({"size_mb": DOWN, "cider": UP}, {}, [("size_mb", "cider")]),
        ({"size_mb": DOWN, "latency_ms": DOWN}, {}, [("latency_ms", "size_mb")]),
        ({"cider": UP, "params": {"at_most": 1e7}}, {}, [("params", "cider")]),
        ({"cider": UP}, {}, [("size_mb", "cider")]),
        ({"size_mb": DOWN}, {}, [("latency_ms", "size_mb")]),
        ({"cider": UP, "size_mb": DOWN}, {"x": "params"}, [("params", "cider")]),
        ({"cider": UP, "size_mb": DOWN}, {"x": "cider"}, [("cider", "size_mb")]),
        ({"cider": UP, "size_mb": DOWN}, {"y": "latency_ms"}, [("cider", "latency_ms")]),
        (
            {"cider": UP, "size_mb": DOWN},
            {"x": "latency_ms", "y": "params"},
            [("latency_ms", "params")],
        ),
        ({"cider": UP}, {"x": "cider"}, [("cider", "size_mb")]),
        ({"params": {"at_most": 1e7}, "cider": UP}, {"x": "cider"}, [("cider", "params")]),
    ],
)
def test_quality_is_drawn_against_each_cost_unless_other_metrics_are_named(
    objectives, named, expected
):
    assert axes(objectives, **named) == expected


def test_an_unknown_metric_is_named_with_the_nearest():
    front, results = drawn_study()
    with pytest.raises(StudyError) as caught:
        panels_of(front, results, x="latency", y="cidr")
    assert ["did you mean 'latency_ms'" in caught.value.problems[0]] == [True]
    assert "did you mean 'cider'" in caught.value.problems[1]


def test_a_metric_is_not_drawn_against_itself():
    with pytest.raises(StudyError, match="y: must be another metric than x, but both are 'cider'"):
        panels_of(*drawn_study(), x="cider", y="cider")


def test_a_study_without_a_complete_trial_cannot_be_drawn():
    front, results = drawn_study()
    stopped = [one for one in results if one.status == "stopped"]
    with pytest.raises(StudyError, match="must have a complete trial"):
        panels_of(front, stopped)


@pytest.mark.parametrize("objectives", [BOUNDED, {"cider": UP, "size_mb": DOWN}])
def test_every_trial_is_one_point_of_one_kind(objectives):
    front, results = drawn_study(60, objectives=objectives)
    (panel,) = panels_of(front, results)
    kinds = (FRONT, OTHER_FRONT, OTHER, OUT_OF_BOUNDS, STOPPED)
    drawn = sum(len(panel.points[kind]) for kind in kinds)
    members = {one.trial for one in front.members}
    assert drawn == len(results) - len({0, 1} - members)
    assert panel.points[DENSE_KIND] == [(DENSE["size_mb"], DENSE["cider"])]
    assert panel.points[CONTROL_KIND] == [(CONTROL["size_mb"], CONTROL["cider"])]
    assert panel.labels.keys() == members
    assert not panel.points[OTHER_FRONT]
    assert bool(panel.points[OUT_OF_BOUNDS]) == (objectives is BOUNDED)
    assert panel.points[STOPPED]
    assert all(math.isnan(y) for _, y in panel.points[STOPPED])


def test_what_only_another_objective_keeps_on_the_front_is_told_apart():
    quick = {"cider": 0.5, "size_mb": 9.0, "latency_ms": 3.0}
    small = {"cider": 0.55, "size_mb": 3.0, "latency_ms": 9.0}
    front = made_front({4: quick, 6: small})
    _, results = drawn_study(2)
    by_size, by_latency = panels_of(front, results)
    assert by_size.points[FRONT] == [(3.0, 0.55)]
    assert by_size.points[OTHER_FRONT] == [(9.0, 0.5)]
    assert by_latency.points[FRONT] == [(3.0, 0.5), (9.0, 0.55)]
    assert by_latency.stairs == [(3.0, 0.5), (9.0, 0.5), (9.0, 0.55)]


def test_the_stairs_pass_through_nothing_better():
    """Every corner is dominated by a member, and every member is a point of the line."""
    front, results = drawn_study(60)
    for panel in panels_of(front, results):
        assert set(panel.points[FRONT]) <= set(panel.stairs)
        for x, y in set(panel.stairs) - set(panel.points[FRONT]):
            assert any(a <= x and b >= y for a, b in panel.points[FRONT])
