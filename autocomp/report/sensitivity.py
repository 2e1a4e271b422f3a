"""A study of sensitivity as a grid: a row a layer, a column a width or ratio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autocomp.errors import StudyError
from autocomp.report.table import Table
from autocomp.space.objectives import Objective
from autocomp.study.front import directed
from autocomp.study.sensitivity import Reading, Sensitivity

HEADINGS: dict[str, Callable[[float], str]] = {
    "quantize": lambda bits: f"{bits:g} bits",
    "fixed_point": lambda bits: f"{bits:g} fixed",
    "prune_channels": lambda ratio: f"-{ratio:.0%} channels",
    "prune_heads": lambda ratio: f"-{ratio:.0%} heads",
    "prune_width": lambda ratio: f"-{ratio:.0%} units",
}
"""What a kind of step does to a layer at a value, in a few characters."""


BITS = ("quantize", "fixed_point")
"""Kinds whose values are bits, of which fewer take away more."""


@dataclass(frozen=True)
class Grid:
    """`shares[layer][heading]` is the share of dense's quality that is left; some are not known."""

    metric: str
    headings: tuple[str, ...]
    shares: dict[str, dict[str, float]]


def grid(found: Sensitivity, objectives: tuple[Objective, ...]) -> Grid:
    """The readings by layer, in the model's order, of the first quality among the objectives.

    `StudyError` if there is none, or if the dense model has none of it.
    """
    metric = next((one for one, better in directed(objectives) if better == "maximize"), None)
    if metric is None:
        raise StudyError("objectives: must hold a quality to maximise, but have none")
    dense = found.dense[metric]
    if dense <= 0:
        raise StudyError(f"the dense model's {metric} must be above 0, but is {dense:g}")
    shares: dict[str, dict[str, float]] = {}
    for one in found.readings:
        row = shares.setdefault(one.layer, {})
        if one.status == "complete":
            row[HEADINGS[one.kind](one.value)] = one.metrics[metric] / dense
    order = sorted(found.readings, key=lambda one: (list(HEADINGS).index(one.kind), _mild(one)))
    headings = tuple(dict.fromkeys(HEADINGS[one.kind](one.value) for one in order))
    return Grid(metric, headings, shares)


def _mild(reading: Reading) -> float:
    """Ascends with how much is taken away."""
    return -reading.value if reading.kind in BITS else reading.value


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
