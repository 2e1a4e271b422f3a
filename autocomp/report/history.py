"""What a study cost and how it went: time, stages, sessions, the hypervolume after each trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from autocomp.study.front import (
    Member,
    directed,
    is_feasible,
    non_dominated,
    relative_hypervolume,
)
from autocomp.study.sessions import Session
from autocomp.study.study import Study

SHOWN_OF_SESSION = ("started", "command", "commit", "machine", "versions")


def spent_hours(sessions: Sequence[Session], ended: Mapping[int, datetime]) -> dict[int, float]:
    """By trial, the hours that had been searched when it ended, pauses between sessions left out.

    A session lasts from its start, the dense model's training included, to its last trial's end.
    """
    starts = sorted(datetime.fromisoformat(one["started"]) for one in sessions if "started" in one)
    starts = [one for one in starts if ended and one <= max(ended.values())]
    spent: dict[int, float] = {}
    before = 0.0
    for index, start in enumerate(starts):
        stop = starts[index + 1] if index + 1 < len(starts) else None
        own = {
            trial: before + (end - start).total_seconds() / 3600
            for trial, end in sorted(ended.items(), key=lambda item: item[1])
            if start <= end and (stop is None or end < stop)
        }
        spent |= own
        before = max(own.values(), default=before)
    return spent


def progress(study: Study, hours: Mapping[int, float]) -> list[dict[str, Any]]:
    """The hypervolume after each trial, in the order they ended: trial, hours (or None), value.

    Bounds and shares are those of the finished study, so that only the front moves.
    """
    front, objectives = study.front(), study.space.objectives
    directions = [direction for _, direction in directed(objectives)]
    members: list[Member] = []
    points: list[dict[str, Any]] = []
    for number in sorted(study.results, key=lambda one: (hours.get(one, 0.0), one)):
        result, before = study.results[number], len(members)
        if result.status == "complete" and is_feasible(result.metrics, objectives, front.reference):
            members.append(Member(number, study.policies[number], result.metrics))
        if len(members) > before or not points:
            values = [[one.metrics[name] for name, _ in directed(objectives)] for one in members]
            members = [members[index] for index in non_dominated(values, directions)]
            volume = relative_hypervolume(members, objectives, front.dense)
        points.append({"trial": number, "hours": hours.get(number), "hypervolume": volume})
    return points


def cost(study: Study, hours: Mapping[int, float]) -> dict[str, Any]:
    """Hours on the clock (None if unknown), seconds by stage, trials by status, and sessions."""
    seconds: Counter[str] = Counter()
    for result in study.results.values():
        seconds.update(result.seconds)
    return {
        "hours": max(hours.values(), default=None),
        "seconds": dict(seconds.most_common()),
        "statuses": Counter(result.status for result in study.results.values()),
        "unfinished": len(set(study.policies) - set(study.results)),
        "sessions": [{key: one.get(key) for key in SHOWN_OF_SESSION} for one in study.sessions],
    }
