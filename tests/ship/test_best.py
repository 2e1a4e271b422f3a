from __future__ import annotations

from typing import Any

import pytest

from autocomp.errors import UserError
from autocomp.policy import Policy, Retrain
from autocomp.ship.best import best
from autocomp.space.metrics import METRICS
from autocomp.space.objectives import parse_objectives
from autocomp.study.front import Front, Member

DENSE = {"cider": 0.9, "size_mb": 10.0, "latency_ms": 8.0, "mean_tokens": 9.0}
CONTROL = DENSE | {"cider": 1.0}
RESULTS = {
    0: DENSE,
    3: {"cider": 0.93, "size_mb": 5.0, "latency_ms": 6.0, "mean_tokens": 9.5},
    7: {"cider": 0.86, "size_mb": 2.0, "latency_ms": 4.0, "mean_tokens": 9.1},
    12: {"cider": 0.70, "size_mb": 1.0, "latency_ms": 4.0, "mean_tokens": 8.0, "meteor": 0.2},
}
OBJECTIVES = {"cider": "maximize", "size_mb": "minimize", "latency_ms": "minimize"}


def make_front(**changes: Any) -> Front:
    members = tuple(
        Member(number, Policy(steps=(Retrain(steps=number),)), metrics)
        for number, metrics in RESULTS.items()
    )
    parts = {
        "members": members,
        "dense": DENSE,
        "control": CONTROL,
        "objectives": parse_objectives(OBJECTIVES, METRICS, []),
        "hypervolume": 0.5,
        "provenance": {},
    }
    return Front(**{**parts, **changes})


@pytest.mark.parametrize(
    ("text", "trial"),
    [
        ("min size_mb", 12),
        ("max cider", 3),
        ("cider>=0.86*dense, min latency_ms", 7),
        ("min latency_ms , cider >= 86% * dense", 7),
        ("cider>=0.9*control, min latency_ms", 3),
        ("cider>=.85,size_mb<=5,max cider", 3),
        ("size_mb<5, max cider", 7),
        ("size_mb<5.0, latency_ms>4, max cider", None),
        ("cider>0.86, min size_mb", 3),
        ("cider>=8.6e-1, min size_mb", 7),
        ("min latency_ms", 7),
        ("max mean_tokens", 3),
        ("min meteor", None),
        ("meteor>=0.1, max meteor", 12),
        ("cider>=1*dense, max size_mb", None),
    ],
)
def test_the_best_trial_meets_every_constraint(text, trial):
    if trial is None:
        with pytest.raises(UserError):
            best(make_front(), text)
    else:
        assert best(make_front(), text) == trial


def test_a_share_of_dense_quality_is_of_the_better_of_dense_and_control():
    assert best(make_front(), "cider>=0.93*dense, min latency_ms") == 3
    assert best(make_front(control=None), "cider>=0.93*dense, min latency_ms") == 7


def test_a_tie_goes_to_the_earlier_trial():
    assert best(make_front(), "min latency_ms") == 7


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("min latncy_ms", ["'latncy_ms'", "did you mean 'latency_ms'"]),
        ("cidr>=1, min size_mb", ["'cidr'", "did you mean 'cider'"]),
        ("cider>=1*dens, min size_mb", ["'dens'", "did you mean 'dense'"]),
        ("cider=1, min size_mb", ["'cider=1'", "cider>=0.95*dense, min latency_ms"]),
        ("cider>=0.9", ["one min or max", "has 0"]),
        ("min size_mb, max cider", ["one min or max", "has 2"]),
        ("", ["must be like", "''"]),
        ("cider>=95%, min size_mb", ["95%*dense"]),
        ("cider>=1e999, min size_mb", ["finite", "1e999"]),
        ("max latency_ms", ["'min latency_ms'", "'max latency_ms'"]),
    ],
)
def test_a_mistake_is_reported_with_what_is_right(text, parts):
    with pytest.raises(UserError) as caught:
        best(make_front(), text)
    assert len(caught.value.problems) == 1
    assert all(part in str(caught.value) for part in parts)


def test_equally_good_by_the_goal_the_better_by_the_objectives_is_chosen():
    same = {"size_mb": 2.0, "mean_tokens": 9.0}
    twins = {2: {"cider": 0.5, "latency_ms": 3.0}, 5: {"cider": 0.8, "latency_ms": 3.1}}
    members = tuple(Member(number, Policy(), one | same) for number, one in twins.items())
    assert best(make_front(members=members), "min size_mb") == 5


def test_what_is_not_compressed_is_never_chosen():
    members = tuple(Member(number, Policy(), DENSE) for number in (0, 1))
    with pytest.raises(UserError, match="none that is compressed has a latency_ms"):
        best(make_front(members=members), "min latency_ms")


def test_every_mistake_is_reported_at_once():
    with pytest.raises(UserError) as caught:
        best(make_front(), "cidr>=1, size<3, min latncy_ms")
    assert len(caught.value.problems) == 3


def test_where_nothing_is_good_enough_the_closest_is_named_with_what_it_misses():
    with pytest.raises(UserError) as caught:
        best(make_front(), "cider>=1*dense, latency_ms<=4, max cider")
    assert str(caught.value) == (
        "best: must be met by a trial of the front, but none that is compressed has "
        "cider >= 1 (1*dense) and latency_ms <= 4; closest is trial 7: its cider of 0.86 misses "
        "by 14 %"
    )


@pytest.mark.parametrize(
    ("changes", "text", "message"),
    [
        ({"members": ()}, "min size_mb", "empty"),
        ({"control": None}, "cider>=0.9*control, min size_mb", "no control cider"),
        ({}, "meteor>=0.9*dense, min size_mb", "no dense meteor"),
    ],
    ids=["empty front", "no control", "unmeasured"],
)
def test_what_the_study_lacks_is_said(changes, text, message):
    with pytest.raises(UserError, match=message):
        best(make_front(**changes), text)
