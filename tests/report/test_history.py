from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from autocomp.report.history import cost, progress, spent_hours
from autocomp.study.study import Study

START = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def session(hours: float) -> dict[str, str]:
    return {"started": at(hours).isoformat()}


def test_a_pause_between_sessions_costs_nothing():
    ended = {0: at(1), 1: at(1.5), 2: at(20.25), 3: at(21)}
    hours = spent_hours([session(0), session(20)], ended)
    assert hours == pytest.approx({0: 1.0, 1: 1.5, 2: 1.75, 3: 2.5})


@pytest.mark.parametrize(
    ("sessions", "ended", "expected"),
    [
        ([], {0: at(1)}, {}),
        ([session(0)], {}, {}),
        ([session(0), session(5)], {0: at(1)}, {0: 1.0}),
        ([session(0), session(2), session(3)], {0: at(1), 1: at(4)}, {0: 1.0, 1: 2.0}),
    ],
    ids=["no sessions", "nothing ended", "a session just begun", "one without results"],
)
def test_sessions_and_trials_need_not_match(sessions, ended, expected):
    assert spent_hours(sessions, ended) == pytest.approx(expected)


def test_hypervolume_only_grows_and_ends_at_the_fronts(whole: Path):
    study = Study.load(whole)
    for hours in ({}, {number: number / 10 for number in study.results}):
        points = progress(study, hours)
        assert sorted(one["trial"] for one in points) == list(study.results)
        volumes = [one["hypervolume"] for one in points]
        assert volumes == sorted(volumes)
        assert volumes[-1] == pytest.approx(study.front().hypervolume)


def test_cost_adds_up(whole: Path):
    study = Study.load(whole)
    found = cost(study, {0: 0.5, 1: 0.75})
    assert found["hours"] == 0.75
    assert sum(found["statuses"].values()) == len(study.results)
    assert found["seconds"] == {
        "retrain": 3.0 * len(study.results),
        "measure": 1.0 * len(study.results),
    }
    assert [one["command"] for one in found["sessions"]] == ["autocomp search made.yaml"]
    assert found["unfinished"] == 0
