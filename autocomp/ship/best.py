"""Chooses a trial of a front in words: `cider>=0.95*dense, min latency_ms`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from autocomp.errors import UserError, unknown
from autocomp.results import CONTROL_TRIAL, DENSE_TRIAL
from autocomp.space.metrics import METRICS, Direction
from autocomp.study.front import Front, Member, directed

EXAMPLE = "cider>=0.95*dense, min latency_ms"

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


REFERENCES: dict[str, Callable[[Front], Mapping[str, float] | None]] = {
    "dense": lambda front: front.reference,
    "control": lambda front: front.control,
}
"""What a number may be a multiple of, and where its metrics stand."""

_CONSTRAINT = re.compile(
    r"(?P<metric>\w+)\s*(?P<operator>>=|<=|>|<)\s*"
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"\s*(?P<percent>%)?\s*(?:\*\s*(?P<of>\w+))?"
)
_GOAL = re.compile(r"(?P<word>min|max)\s+(?P<metric>\w+)")


@dataclass(frozen=True)
class Constraint:
    """`metric operator limit`; `text` is the limit as the user wrote it."""

    metric: str
    operator: str
    limit: float
    text: str

    def holds(self, metrics: Mapping[str, float]) -> bool:
        return OPERATORS[self.operator](metrics[self.metric], self.limit)

    def miss(self, metrics: Mapping[str, float]) -> float:
        """How far a value is on the wrong side, as a fraction of the limit; 0 on the right one."""
        sign = -1 if self.operator.startswith(">") else 1
        return max(0.0, sign * (metrics[self.metric] - self.limit) / (abs(self.limit) or 1.0))

    def __str__(self) -> str:
        plain = f"{self.metric} {self.operator} {self.limit:.4g}"
        return f"{plain} ({self.text})" if "*" in self.text else plain


@dataclass(frozen=True)
class Query:
    """Which trials are good enough, and which of them is best."""

    constraints: tuple[Constraint, ...]
    metric: str
    word: Literal["min", "max"]

    @property
    def metrics(self) -> set[str]:
        return {self.metric, *(one.metric for one in self.constraints)}


def best(front: Front, text: str) -> int:
    """The number of the trial on the front that meets every constraint and is best by the goal.

    Neither the dense model nor the control is chosen: nothing in them is compressed.

    `text` holds constraints such as `cider>=0.95*dense`, `cider>=95%*control` or `size_mb<2`, and
    exactly one `min METRIC` or `max METRIC`, separated by commas. `UserError` lists every mistake,
    or says which trial comes closest and by how much it misses.
    """
    query = parse(front, text)
    found = choose(front, query)
    if found is None:
        raise UserError(_nothing(query, _candidates(front, query)))
    return found


def choose(front: Front, query: Query) -> int | None:
    """The trial that a query asks for; None if none meets it.

    Of several that are equally good by the goal it is the best by the first objective in which
    they differ.
    """
    candidates = _candidates(front, query)
    good = [one for one in candidates if all(c.holds(one.metrics) for c in query.constraints)]
    goal: tuple[str, Direction] = (query.metric, "minimize" if query.word == "min" else "maximize")
    order = [goal, *directed(front.objectives)]

    def rank(one: Member) -> tuple[float, ...]:
        values = [
            one.metrics[name] if way == "minimize" else -one.metrics[name] for name, way in order
        ]
        return (*values, one.trial)

    return min(good, key=rank).trial if good else None


def _candidates(front: Front, query: Query) -> list[Member]:
    """Members that are compressed and have what is asked for."""
    return [
        one
        for one in front.members
        if one.trial not in (DENSE_TRIAL, CONTROL_TRIAL) and query.metrics <= one.metrics.keys()
    ]


def parse(front: Front, text: str) -> Query:
    """The query a text holds; `UserError` lists every mistake in it."""
    if not front.members:
        raise UserError("best: must have a front to choose from, but it is empty so far")
    lines: list[str] = []
    constraints: list[Constraint] = []
    goals: list[re.Match[str]] = []
    for part in (one.strip() for one in text.split(",")):
        goal, constraint = _GOAL.fullmatch(part), _CONSTRAINT.fullmatch(part)
        if goal:
            goals.append(goal)
        elif constraint:
            constraints += _constraint(front, constraint, lines)
        else:
            lines.append(f"best: must be like {EXAMPLE!r}, but got {part!r}")
    lines += [line for goal in goals for line in _goal_problems(front, goal)]
    if not lines and len(goals) != 1:
        lines.append(f"best: must have one min or max of a metric, but has {len(goals)}")
    if lines:
        raise UserError(*lines)
    word: Literal["min", "max"] = "min" if goals[0]["word"] == "min" else "max"
    return Query(tuple(constraints), goals[0]["metric"], word)


def _constraint(front: Front, found: re.Match[str], lines: list[str]) -> list[Constraint]:
    """The constraint, or none and a line that says why."""
    metric, of = found["metric"], found["of"]
    number = float(found["number"]) / (100 if found["percent"] else 1)
    written = found[0][found.end("operator") - found.start() :].strip()
    if metric not in _metrics(front):
        lines.append(unknown("best", metric, _metrics(front)))
    elif not math.isfinite(number):
        lines.append(f"best: {metric} must be compared with a finite number, but got {written}")
    elif of is None and found["percent"]:
        lines.append(f"best: {written} must say of what, such as {written}*dense")
    elif of is None:
        return [Constraint(metric, found["operator"], number, written)]
    elif of not in REFERENCES:
        lines.append(unknown("best", of, list(REFERENCES)))
    else:
        reference = REFERENCES[of](front) or {}
        if metric in reference:
            limit = number * reference[metric]
            return [Constraint(metric, found["operator"], limit, written)]
        lines.append(f"best: {written} must have a value, but the study has no {of} {metric} yet")
    return []


def _goal_problems(front: Front, goal: re.Match[str]) -> list[str]:
    """A metric nobody measured, or one that is worse the way the goal wants it."""
    metric, known = goal["metric"], _metrics(front)
    if metric not in known:
        return [unknown("best", metric, known)]
    better = METRICS.get(metric)
    if better and not better.startswith(goal["word"]):
        return [f"best: must be '{better[:3]} {metric}', but got {goal[0]!r}"]
    return []


def _metrics(front: Front) -> list[str]:
    return sorted({name for one in front.members for name in one.metrics})


def _nothing(query: Query, candidates: Sequence[Member]) -> str:
    wanted = " and ".join(map(str, query.constraints)) or f"a {query.metric}"
    line = f"best: must be met by a trial of the front, but none that is compressed has {wanted}"
    if not candidates:
        return line
    closest = min(candidates, key=lambda one: sum(c.miss(one.metrics) for c in query.constraints))
    misses = " and ".join(
        f"its {one.metric} of {closest.metrics[one.metric]:.4g} misses by "
        f"{100 * one.miss(closest.metrics):.2g} %"
        for one in query.constraints
        if not one.holds(closest.metrics)
    )
    return f"{line}; closest is trial {closest.trial}: {misses}"
