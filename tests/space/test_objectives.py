from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocomp.space.metrics import METRICS
from autocomp.space.objectives import Bound, Objective, parse_objectives

numbers = st.floats(-1e6, 1e6)


def parse(section: dict[str, Any]) -> tuple[tuple[Objective, ...], list[str]]:
    lines: list[str] = []
    return parse_objectives(section, METRICS, lines), lines


def test_every_way_of_writing_an_objective() -> None:
    section = {
        "cider": "maximize",
        "latency_ms": {"direction": "minimize", "at_most": "0.5*dense"},
        "meteor": {"direction": "maximize", "at_least": "1e-1 * dense"},
        "peak_rss_mb": {"at_most": 200},
        "mean_tokens": {"at_least": 5, "at_most": "2*dense"},
    }
    objectives, lines = parse(section)
    assert not lines
    assert objectives == (
        Objective("cider", "maximize"),
        Objective("latency_ms", "minimize", at_most=Bound(0.5, of_dense=True)),
        Objective("meteor", "maximize", at_least=Bound(0.1, of_dense=True)),
        Objective("peak_rss_mb", at_most=Bound(200.0)),
        Objective("mean_tokens", at_least=Bound(5.0), at_most=Bound(2.0, of_dense=True)),
    )
    assert parse({one.metric: one.to_plain() for one in objectives})[0] == objectives


def test_a_bound_is_a_number_or_a_multiple_of_dense() -> None:
    assert Bound(200.0).value() == 200
    assert Bound(0.5, of_dense=True).value(30.0) == 15


@pytest.mark.parametrize(
    ("objective", "value", "expected"),
    [
        (Objective("latency_ms", at_most=Bound(10.0)), 15.0, 0.5),
        (Objective("latency_ms", at_most=Bound(10.0)), 10.0, 0.0),
        (Objective("latency_ms", at_most=Bound(10.0)), 5.0, -0.5),
        (Objective("cider", at_least=Bound(0.5, of_dense=True)), 0.25, 0.5),
        (Objective("cider", at_least=Bound(0.5), at_most=Bound(1.0)), 2.0, 1.0),
        (Objective("cider", at_least=Bound(0.0)), -3.0, 3.0),
        (Objective("cider", "maximize"), 0.0, 0.0),
        (Objective("cider", at_least=Bound(0.5)), math.nan, math.inf),
    ],
    ids=["above", "at", "below", "of-dense", "two", "zero", "unbounded", "nan"],
)
def test_violation_is_relative_to_the_bound(
    objective: Objective, value: float, expected: float
) -> None:
    assert objective.violation(value, dense_value=1.0) == pytest.approx(expected)


@given(numbers, numbers, st.none() | numbers, st.none() | numbers)
def test_violation_is_positive_exactly_outside_the_bounds(
    value: float, dense: float, low: float | None, high: float | None
) -> None:
    objective = Objective(
        "cider",
        at_least=None if low is None else Bound(low),
        at_most=None if high is None else Bound(high),
    )
    feasible = (low is None or value >= low) and (high is None or value <= high)
    assert (objective.violation(value, dense) <= 0) == feasible


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"cider": "minimize"}, "objectives.cider: must be 'maximize', but got 'minimize'"),
        (
            {"mean_tokens": "up"},
            "objectives.mean_tokens: must be 'maximize' or 'minimize', but got 'up'",
        ),
        (
            {"size_mb": {}},
            "objectives.size_mb: must have a direction, at_most or at_least, but got {}",
        ),
        (
            {"size_mb": {"direction": "minimize", "at_mots": 3}},
            "objectives.size_mb: must be one of at_least, at_most, direction, "
            "but got 'at_mots'; did you mean 'at_most' or 'at_least'?",
        ),
        (
            {"size_mb": {"direction": "minimize", "at_most": "half"}},
            "objectives.size_mb.at_most: must be a number or a multiple like '0.5*dense', "
            "but got 'half'",
        ),
        (
            {"size_mb": {"direction": "minimize", "at_most": "x*dense"}},
            "objectives.size_mb.at_most: must be a number or a multiple like '0.5*dense', "
            "but got 'x*dense'",
        ),
        (
            {"size_mb": {"direction": "minimize", "at_most": True}},
            "objectives.size_mb.at_most: must be a number or a multiple like '0.5*dense', "
            "but got True",
        ),
        (
            {"size_mb": {"direction": "minimize", "at_least": 3, "at_most": 2}},
            "objectives.size_mb: at_least <= at_most must hold, "
            "but got (at_least=3.0, at_most=2.0)",
        ),
        (
            {"size_mb": {"at_most": 3}},
            "objectives: must hold at least one metric with a direction, but got size_mb",
        ),
        ({}, "objectives: must hold at least one metric with a direction, but got none"),
    ],
)
def test_a_bad_objective_names_place_rule_and_value(section: dict[str, Any], expected: str) -> None:
    assert parse(section)[1] == [expected]


def test_an_unknown_metric_is_reported_with_the_nearest() -> None:
    line = parse({"cidr": "maximize", "size_mb": "minimize"})[1][0]
    assert line.startswith("objectives: must be one of bleu_1, ")
    assert "but got 'cidr'; did you mean 'cider'" in line
