"""The Pareto front of a study: which results nothing beats, and how much they gain together."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autocomp.evaluate.bootstrap import Interval, Paired
from autocomp.policy import Policy
from autocomp.predictions import DECIMALS
from autocomp.results import CONTROL_TRIAL
from autocomp.space.metrics import METRICS, Direction
from autocomp.space.objectives import Objective

Point = tuple[float, ...]
Intervals = dict[str, dict[str, Paired]]
"""Metric -> "dense" or "control" -> the 95 % intervals of one trial's score beside that one's."""


def non_dominated(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[int]:
    """Indices, ascending, of the points that no other point dominates.

    One point dominates another if it is at least as good in every objective and better in one;
    equal points don't dominate each other.
    """
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    losses = np.asarray(points, dtype=float).reshape(len(points), len(directions)) * signs
    kept = []
    for index, loss in enumerate(losses):  # (M,)
        no_worse = (losses <= loss).all(axis=1)  # (N,)
        if not (losses[no_worse] < loss).any():
            kept.append(index)
    return kept


def hypervolume(ratios: Sequence[Sequence[float]], directions: Sequence[Direction]) -> float:
    """Volume dominated by points whose objectives are divided by the dense model's. Exact.

    The reference point is 0 for a maximised and 1 for a minimised objective, so a point adds
    nothing unless it is smaller, or faster, than the dense model in every minimised objective.
    """
    gains = (
        tuple(
            value if direction == "maximize" else 1.0 - value
            for value, direction in zip(point, directions, strict=True)
        )
        for point in ratios
    )
    return _union_of_boxes([point for point in gains if min(point) > 0])


def _union_of_boxes(corners: list[Point]) -> float:
    """Volume of the union of the boxes from the origin to each corner.

    Corners are taken in ascending order of their first coordinate. What one adds to those after it
    is its first side times the part of its face that their faces, cut to it, leave uncovered: the
    same problem with one dimension less.
    """
    if not corners:
        return 0.0
    if len(corners[0]) == 1:
        return max(corner[0] for corner in corners)
    corners = sorted(set(corners))
    if len(corners[0]) == 2:
        return _union_of_rectangles(corners)
    volume = 0.0
    for index, (side, *face) in enumerate(corners):
        later = [tuple(map(min, corner[1:], face)) for corner in corners[index + 1 :]]
        volume += side * (math.prod(face) - _union_of_boxes(_outermost(later)))
    return volume


def _union_of_rectangles(ascending: list[Point]) -> float:
    area, height = 0.0, 0.0
    for width, tall in reversed(ascending):
        if tall > height:
            area += width * (tall - height)
            height = tall
    return area


def _outermost(corners: list[Point]) -> list[Point]:
    if len(corners) < 2 or len(corners[0]) < 3:
        return corners
    return [corners[index] for index in non_dominated(corners, ["maximize"] * len(corners[0]))]


@dataclass(frozen=True)
class Member:
    """One complete trial: its number, what was done, and what came of it."""

    trial: int
    policy: Policy
    metrics: dict[str, float]


@dataclass(frozen=True)
class Front:
    """The feasible results that no other result beats, ordered by trial number.

    Dense and control stand beside it, and in it if they earn it. `hypervolume` is None until there
    is a dense model with a positive value in every objective to divide by. `intervals` are those of
    the members, dense and control, by trial, where predictions were kept. `others` are the complete
    results that are not in it, where they are asked for, with their intervals.
    """

    members: tuple[Member, ...]
    dense: dict[str, float] | None
    control: dict[str, float] | None
    objectives: tuple[Objective, ...]
    hypervolume: float | None
    provenance: dict[str, Any]
    intervals: Mapping[int, Intervals] = field(default_factory=dict)
    others: tuple[Member, ...] = ()

    @property
    def reference(self) -> dict[str, float] | None:
        """What shares of dense are shares of: see `better_dense`."""
        return better_dense(self.dense, self.control, self.objectives)

    def share_interval(self, trial: int, metric: str) -> Interval | None:
        """The ends of the interval of a trial's share of dense, a fraction, where it is known.

        Like the share it is of the better of dense and control, which has none itself.
        """
        if self.dense is None or self.reference is None:
            return None
        name = "dense" if self.reference[metric] == self.dense[metric] else "control"
        paired = self.intervals.get(trial, {}).get(metric, {}).get(name)
        return None if paired is None else paired.ratio

    @classmethod
    def of(
        cls,
        results: Iterable[Member],
        objectives: Sequence[Objective],
        dense: dict[str, float] | None,
        control: dict[str, float] | None,
        provenance: dict[str, Any],
    ) -> Front:
        """The front of complete results; bounds are relative to the better of dense and control."""
        reference = better_dense(dense, control, objectives)
        feasible = [one for one in results if is_feasible(one.metrics, objectives, reference)]
        steered = directed(objectives)
        directions = [direction for _, direction in steered]
        points = [[one.metrics[metric] for metric, _ in steered] for one in feasible]
        members = [feasible[index] for index in non_dominated(points, directions)]
        return cls(
            members=tuple(sorted(members, key=lambda one: one.trial)),
            dense=dense,
            control=control,
            objectives=tuple(objectives),
            hypervolume=relative_hypervolume(members, objectives, dense),
            provenance=provenance,
        )

    def to_json(self) -> dict[str, Any]:
        """What front.json holds."""
        return {
            "dense": None if self.dense is None else {"metrics": self.dense},
            "control": None
            if self.control is None
            else {"metrics": self.control, "intervals": self.differences(CONTROL_TRIAL)},
            "front": [self._plain(one) for one in self.members],
            **({"others": [self._plain(one) for one in self.others]} if self.others else {}),
            "hypervolume": self.hypervolume,
            "objectives": {one.metric: one.to_plain() for one in self.objectives},
            "provenance": self.provenance,
        }

    def _plain(self, one: Member) -> dict[str, Any]:
        return {
            "trial": one.trial,
            "policy_id": one.policy.id,
            "policy": one.policy.model_dump(mode="json"),
            "metrics": one.metrics,
            "intervals": self.differences(one.trial),
        }

    def to_csv(self) -> str:
        """One row a member: trial, policy_id, the objectives, every other metric, the intervals.

        With `others` each has a row too, and the column on_front tells them apart.
        """
        rows = sorted([*self.members, *self.others], key=lambda one: one.trial)
        first = [one.metric for one in self.objectives]
        rest = sorted({name for one in rows for name in one.metrics} - set(first))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        ends = {one.trial: _ends(self.differences(one.trial)) for one in rows}
        compared = list(dict.fromkeys(name for one in ends.values() for name in one))
        placed = ["on_front"] if self.others else []
        writer.writerow(["trial", "policy_id", *placed, *first, *rest, *compared])
        for one in rows:
            where = ["yes" if one in self.members else "no"] * len(placed)
            values = [one.metrics.get(name, "") for name in first + rest]
            values += [ends[one.trial].get(name, "") for name in compared]
            writer.writerow([one.trial, one.policy.id, *where, *values])
        return text.getvalue()

    def differences(self, trial: int) -> dict[str, dict[str, list[float]]]:
        """The trial's intervals of differences alone, to as many digits as scores are kept."""
        return {
            metric: {
                name: [round(end, DECIMALS) for end in paired.difference]
                for name, paired in by_reference.items()
            }
            for metric, by_reference in self.intervals.get(trial, {}).items()
        }


def _ends(differences: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """The ends of every interval of a trial, under the names of their columns."""
    return {
        f"{metric}_minus_{name}_{side}": end
        for metric, by_reference in differences.items()
        for name, ends in by_reference.items()
        for side, end in zip(("low", "high"), ends, strict=True)
    }


def better_dense(
    dense: dict[str, float] | None,
    control: dict[str, float] | None,
    objectives: Iterable[Objective] = (),
) -> dict[str, float] | None:
    """The dense model's metrics, but the quality the control reached if that is higher.

    Retraining alone may raise quality; a share of dense quality is a share of the better of both.
    """
    if dense is None or control is None:
        return dense
    better = METRICS | dict(directed(objectives))
    return {
        metric: max(value, control.get(metric, value))
        if better.get(metric) == "maximize"
        else value
        for metric, value in dense.items()
    }


def directed(objectives: Iterable[Objective]) -> list[tuple[str, Direction]]:
    """Metric and direction of the objectives that are optimised; the rest are only bounds."""
    return [(one.metric, one.direction) for one in objectives if one.direction is not None]


def is_feasible(
    metrics: dict[str, float], objectives: Iterable[Objective], dense: dict[str, float] | None
) -> bool:
    """True if every bound holds."""
    return all(value <= 0 for value in violations(metrics, objectives, dense).values())


def violations(
    metrics: dict[str, float], objectives: Iterable[Objective], dense: dict[str, float] | None
) -> dict[str, float]:
    """By how much each bound whose metric is known is broken; it holds when that is at most 0."""
    return {
        one.metric: one.violation(metrics[one.metric], (dense or metrics)[one.metric])
        for one in objectives
        if one.metric in metrics and (one.at_most is not None or one.at_least is not None)
    }


def relative_hypervolume(
    members: Iterable[Member], objectives: Iterable[Objective], dense: dict[str, float] | None
) -> float | None:
    """`hypervolume` of the members divided by `dense`, or None if it has a value of 0 or less."""
    steered = directed(objectives)
    if dense is None or any(dense[metric] <= 0 for metric, _ in steered):
        return None
    ratios = [[one.metrics[metric] / dense[metric] for metric, _ in steered] for one in members]
    return hypervolume(ratios, [direction for _, direction in steered])
