"""What a picture of the front shows: which metrics, and which points of which kind. No drawing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from autocomp.errors import StudyError, unknown
from autocomp.results import CONTROL_TRIAL, DENSE_TRIAL, TrialResult
from autocomp.space.metrics import METRICS, Direction
from autocomp.study.front import Front, directed, is_feasible, non_dominated

DENSE, CONTROL = "dense", "control (dense, retrained)"
FRONT, OTHER_FRONT = "front", "front by another objective"
OTHER, OUT_OF_BOUNDS, STOPPED = "other trials", "out of bounds", "stopped early"
KINDS = (DENSE, CONTROL, FRONT, OTHER_FRONT, OTHER, OUT_OF_BOUNDS, STOPPED)


class Panel(NamedTuple):
    """What one plot shows: a metric along each axis, and the points of every kind.

    `stairs` is the border of what the front dominates in this view, `labels` the points of the
    front by trial number. A stopped trial's quality is not known: its y is NaN.
    """

    x: str
    y: str
    points: dict[str, list[tuple[float, float]]]
    stairs: list[tuple[float, float]]
    labels: dict[int, tuple[float, float]]


def panels_of(
    front: Front, results: Sequence[TrialResult], x: str | None = None, y: str | None = None
) -> list[Panel]:
    """The quality against each cost, or the one panel of the metrics named.

    `StudyError` for a metric that no complete trial has, for one that is named twice, or if there
    is no complete trial.
    """
    complete = [one for one in results if one.status == "complete"]
    axes = _axes(front, complete, x, y)
    return [_panel(front, results, across, upwards) for across, upwards in axes]


def _axes(
    front: Front, complete: Sequence[TrialResult], x: str | None, y: str | None
) -> list[tuple[str, str]]:
    """(x, y) of each panel: quality upwards, and each of the other objectives to the right."""
    known = {name for one in complete for name in one.metrics}
    if not known:
        raise StudyError("plot: must have a complete trial to draw, but there is none")
    lines = [
        unknown(place, metric, sorted(known))
        for place, metric in (("x", x), ("y", y))
        if metric is not None and metric not in known
    ]
    if x is not None and x == y:
        lines.append(f"y: must be another metric than x, but both are {x!r}")
    if lines:
        raise StudyError(*lines)
    goals = directed(front.objectives)
    qualities = [metric for metric, direction in goals if direction == "maximize"]
    named = [one.metric for one in front.objectives] + ["size_mb", "latency_ms", "params"]
    upwards = [*qualities, *(metric for metric, _ in goals), *named]
    vertical = y or next((one for one in upwards if one != x and one in known), upwards[0])
    others = [one for one in dict.fromkeys(named) if one != vertical and one in known]
    if x or y or len(goals) < 2:
        return [(x or (others or [vertical])[0], vertical)]
    return [(metric, vertical) for metric, _ in goals if metric != vertical]


def _panel(front: Front, results: Sequence[TrialResult], x: str, y: str) -> Panel:
    points: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    members = {
        one.trial: (one.metrics[x], one.metrics[y])
        for one in front.members
        if {x, y} <= set(one.metrics)
    }
    directions = [direction_of(front, x), direction_of(front, y)]
    seen = non_dominated(list(members.values()), directions)
    steps = {list(members)[index] for index in seen}
    for trial, point in members.items():
        points[FRONT if trial in steps else OTHER_FRONT].append(point)
    drawn = {DENSE_TRIAL, CONTROL_TRIAL, *members}
    for one in results:
        if one.status == "stopped" and x in one.metrics:
            points[STOPPED].append((one.metrics[x], math.nan))
        elif one.status == "complete" and one.number not in drawn and {x, y} <= set(one.metrics):
            good = is_feasible(one.metrics, front.objectives, front.reference)
            points[OTHER if good else OUT_OF_BOUNDS].append((one.metrics[x], one.metrics[y]))
    for kind, metrics in ((DENSE, front.dense), (CONTROL, front.control)):
        if metrics and {x, y} <= set(metrics):
            points[kind].append((metrics[x], metrics[y]))
    stairs = _stairs([members[trial] for trial in steps], directions[0])
    return Panel(x, y, points, stairs, members)


def direction_of(front: Front, metric: str) -> Direction:
    """Which way a metric is better: as the space has it, else as metrics go, else downwards."""
    known = dict(directed(front.objectives))
    return known.get(metric) or METRICS.get(metric) or "minimize"


def _stairs(
    points: Iterable[tuple[float, float]], direction: Direction
) -> list[tuple[float, float]]:
    """The border of what the points dominate: from each to the next by way of a corner."""
    ordered = sorted(points, reverse=direction == "maximize")
    line = ordered[:1]
    for (_, before), (after, height) in itertools.pairwise(ordered):
        line += [(after, before), (after, height)]
    return line
