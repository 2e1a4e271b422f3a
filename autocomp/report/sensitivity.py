"""A study of sensitivity as a grid: a row a layer, a column a width or ratio."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autocomp.errors import first_of
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
    """`left[layer][heading]` is how much of dense's quality is left; some are not known.

    It is a share of it, or, unless `is_share`, a difference from it, below 0 where something is
    lost. `told` says of what, `training` what was done before it was read. `unread` has the status
    of readings that came to nothing, by layer and heading, and `reasons` a line for each reason,
    also of those that changed less than they say.
    """

    told: str
    training: str
    headings: tuple[str, ...]
    is_share: bool
    left: dict[str, dict[str, float]]
    unread: dict[str, dict[str, str]]
    reasons: tuple[str, ...]

    def cell(self, layer: str, heading: str) -> str:
        """What stands in a table: nothing where nothing was tried."""
        if heading not in self.left[layer]:
            return self.unread[layer].get(heading, "")
        value = self.left[layer][heading]
        return f"{value:.0%}" if self.is_share else f"{value:+.3g}"


def grid(found: Sensitivity, objectives: tuple[Objective, ...]) -> Grid:
    """The readings by layer, in their order, of the quality among the objectives.

    Of one to minimise, half is left where it is twice the dense model's. Where the dense model's
    is not above 0, as that of a log-likelihood, nothing is a share of it.
    """
    metric, better = quality_of(objectives)
    dense = found.dense[metric]
    named = list(zip(found.readings, _headings(found.readings), strict=True))
    left: dict[str, dict[str, float]] = {one.layer: {} for one in found.readings}
    unread: dict[str, dict[str, str]] = {one.layer: {} for one in found.readings}
    reasons: dict[str, list[str]] = defaultdict(list)
    for one, heading in named:
        assert heading not in left[one.layer].keys() | unread[one.layer].keys(), "twice the same"
        if one.status == "complete":
            left[one.layer][heading] = _left(one.metrics[metric], dense, better)
            for line in filter(None, map(_undone, one.skipped)):
                reasons[line].append(f"{one.layer}, {heading}")
        else:
            unread[one.layer][heading] = one.status
            reason = " ".join((one.reason or "no reason is known").split())
            reasons[f"{one.status}: {reason}"].append(f"{one.layer}, {heading}")
    named.sort(key=lambda each: _order(each[0]))
    steps = found.retrain_steps
    return Grid(
        told=_told(title(metric), better, is_share=dense > 0),
        training=f"retrained for {steps} steps" if steps else "nothing retrained",
        headings=tuple(dict.fromkeys(heading for _, heading in named)),
        is_share=dense > 0,
        left=left,
        unread=unread,
        reasons=tuple(f"{first_of(places)}: {reason}" for reason, places in reasons.items()),
    )


def _undone(line: str) -> str | None:
    """Why a step did not do what it says, without its place and layer; None if a kernel did not."""
    found = re.match(r"steps\.\d+\.\w+: (?:[^: ]+: )?(.*)", line)
    return found and found[1]


def _told(metric: str, better: Direction, is_share: bool) -> str:
    if better == "maximize":
        return f"{'share of' if is_share else 'difference from'} the dense model's {metric}"
    return f"the dense model's {metric} {'as a share of' if is_share else 'less'} this one's"


def _left(value: float, dense: float, better: Direction) -> float:
    if dense <= 0:
        return value - dense if better == "maximize" else dense - value
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
    """A row a layer, the one that suffers most first, after those of which nothing is known."""
    columns = {"layer": "layer", **{one: one for one in found.headings}}
    worst = {layer: min(row.values(), default=-math.inf) for layer, row in found.left.items()}
    rows = [
        {"layer": layer, **{one: found.cell(layer, one) for one in found.headings}}
        for layer in sorted(worst, key=lambda layer: worst[layer])
    ]
    return Table(columns, rows)
