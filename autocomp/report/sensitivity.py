"""A study of sensitivity as a grid: a row a layer, a column a width or ratio."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autocomp.policy import NOTHING
from autocomp.report.table import Table
from autocomp.space.metrics import Direction
from autocomp.space.objectives import Objective
from autocomp.study.sensitivity import Reading, Sensitivity, quality_of
from autocomp.titles import step_in_short, title

BITS = ("quantize", "fixed_point")
"""Kinds whose values are bits, of which fewer take away more."""


@dataclass(frozen=True)
class Grid:
    """`shares[layer][heading]` is how much of dense's quality is left; some are not known.

    `told` says what a share is of, `training` what was done before it was read.
    """

    told: str
    training: str
    headings: tuple[str, ...]
    shares: dict[str, dict[str, float]]


def grid(found: Sensitivity, objectives: tuple[Objective, ...]) -> Grid:
    """The readings by layer, in their order, of the quality among the objectives.

    Of one to minimise, half is left where it is twice the dense model's.
    """
    metric, better = quality_of(objectives)
    dense = found.dense[metric]
    named = list(zip(found.readings, _headings(found.readings), strict=True))
    shares: dict[str, dict[str, float]] = {}
    for one, heading in named:
        row = shares.setdefault(one.layer, {})
        if one.status == "complete":
            assert heading not in row, f"{one.layer}: {heading} twice"
            row[heading] = _share(one.metrics[metric], dense, better)
    named.sort(key=lambda each: _order(each[0]))
    told, steps = title(metric), found.retrain_steps
    return Grid(
        told=f"share of the dense model's {told}"
        if better == "maximize"
        else f"the dense model's {told} as a share of this one's",
        training=f"retrained for {steps} steps" if steps else "nothing retrained",
        headings=tuple(dict.fromkeys(heading for _, heading in named)),
        shares=shares,
    )


def _share(value: float, dense: float, better: Direction) -> float:
    if better == "maximize":
        return value / dense
    return dense / value if value else math.inf


def _headings(readings: Sequence[Reading]) -> list[str]:
    """What each reading does in a few words; where those are the same, with what differs."""
    alike: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in readings:
        alike[_short(one)].append(_settings(one))
    told = []
    for one in readings:
        short, own = _short(one), _settings(one)
        differing = [
            key for key in own if any(own[key] != other.get(key) for other in alike[short])
        ]
        told.append(", ".join([short, *(f"{key} {own[key]}" for key in differing)]))
    return told


def _short(reading: Reading) -> str:
    """What was done to the layer, without how it was retrained: that is the same for all."""
    return step_in_short(reading.policy.steps[0])


def _settings(reading: Reading) -> dict[str, Any]:
    """What the reading's step says, but for the layer."""
    settings = reading.policy.steps[0].model_dump(exclude={"layers", "exclude"})
    field = NOTHING[reading.kind][0]
    return settings | {field: settings[field][reading.layer]}


def _order(reading: Reading) -> tuple[int, str, float]:
    """Bits first, then the other kinds; within one kind ascending with how much is taken away."""
    if reading.kind in BITS:
        # a layer's own bits before those of what it gives
        field = "" if reading.field == "bits" else reading.field
        return BITS.index(reading.kind), field, -reading.value
    return len(BITS) + list(NOTHING).index(reading.kind), "", reading.value


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
