"""A study of sensitivity as a grid: a row a layer, a column a width or ratio."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autocomp.errors import StudyError
from autocomp.policy import NOTHING
from autocomp.report.table import Table
from autocomp.space.objectives import Objective
from autocomp.study.front import directed
from autocomp.study.sensitivity import Reading, Sensitivity
from autocomp.titles import in_short

BITS = ("quantize", "fixed_point")
"""Kinds whose values are bits, of which fewer take away more."""


@dataclass(frozen=True)
class Grid:
    """`shares[layer][heading]` is the share of dense's quality that is left; some are not known."""

    metric: str
    headings: tuple[str, ...]
    shares: dict[str, dict[str, float]]


def grid(found: Sensitivity, objectives: tuple[Objective, ...]) -> Grid:
    """The readings by layer, in their order, of the first quality among the objectives.

    `StudyError` if there is none, or if the dense model has none of it.
    """
    metric = next((one for one, better in directed(objectives) if better == "maximize"), None)
    if metric is None:
        raise StudyError("objectives: must hold a quality to maximise, but have none")
    dense = found.dense[metric]
    if dense <= 0:
        raise StudyError(f"the dense model's {metric} must be above 0, but is {dense:g}")
    named = list(zip(found.readings, _headings(found.readings), strict=True))
    shares: dict[str, dict[str, float]] = {}
    for one, heading in named:
        row = shares.setdefault(one.layer, {})
        if one.status == "complete":
            assert heading not in row, f"{one.layer}: {heading} twice"
            row[heading] = one.metrics[metric] / dense
    named.sort(key=lambda each: _order(each[0]))
    return Grid(metric, tuple(dict.fromkeys(heading for _, heading in named)), shares)


def _headings(readings: Sequence[Reading]) -> list[str]:
    """What each reading does in a few words; where those are the same, with what differs."""
    alike: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in readings:
        alike[in_short(one.policy)].append(_settings(one))
    told = []
    for one in readings:
        short, own = in_short(one.policy), _settings(one)
        differing = [
            key for key in own if any(own[key] != other.get(key) for other in alike[short])
        ]
        told.append(", ".join([short, *(f"{key} {own[key]}" for key in differing)]))
    return told


def _settings(reading: Reading) -> dict[str, Any]:
    """What the reading's step says, but for the layer."""
    (step,) = reading.policy.steps
    field = NOTHING[reading.kind][0]
    return {**step.model_dump(exclude={"layers", "exclude"}), field: reading.value}


def _order(reading: Reading) -> tuple[int, float]:
    """Bits first, then the other kinds; within one kind ascending with how much is taken away."""
    if reading.kind in BITS:
        return BITS.index(reading.kind), -reading.value
    return len(BITS) + list(NOTHING).index(reading.kind), reading.value


def sensitivity_table(found: Grid) -> Table:
    """A row a layer, the one that suffers most first; nothing where nothing was read."""
    columns = {"layer": "layer", **{one: one for one in found.headings}}
    rows = [
        {
            "layer": layer,
            **{one: f"{row[one]:.0%}" if one in row else "" for one in found.headings},
        }
        for layer, row in found.shares.items()
    ]
    worst = {layer: min(row.values(), default=1.0) for layer, row in found.shares.items()}
    return Table(columns, sorted(rows, key=lambda row: worst[row["layer"]]))
