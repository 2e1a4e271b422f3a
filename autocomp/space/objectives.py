"""What a search optimises and what it must keep to: the `objectives` section of a space file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from autocomp.errors import unknown
from autocomp.space.metrics import Direction

_OF_DENSE = re.compile(r"\s*([^\s*]+)\s*\*\s*dense\s*")
_KEYS = ("direction", "at_most", "at_least")


@dataclass(frozen=True)
class Bound:
    """A limit: `number` itself, or `number` times the dense model's value of the metric."""

    number: float
    of_dense: bool = False

    def value(self, dense_value: float | None = None) -> float:
        """The limit in the metric's own unit; a bound that is not `of_dense` needs no dense."""
        if not self.of_dense:
            return self.number
        assert dense_value is not None, "a bound relative to dense needs the dense model's value"
        return self.number * dense_value

    def to_plain(self) -> float | str:
        return f"{self.number!r}*dense" if self.of_dense else self.number


@dataclass(frozen=True)
class Objective:
    """One metric of the `objectives` section; without a direction it is only a constraint."""

    metric: str
    direction: Direction | None = None
    at_most: Bound | None = None
    at_least: Bound | None = None

    def violation(self, value: float, dense_value: float | None = None) -> float:
        """How far `value` breaks the bounds, as a fraction of the bound; <= 0 is feasible.

        Fractions, so that violations of metrics with different units can be added up. A NaN breaks
        every bound.
        """
        excess = [0.0] if self.at_most is None and self.at_least is None else []
        for bound, sign in ((self.at_most, 1), (self.at_least, -1)):
            if bound is not None:
                limit = bound.value(dense_value)
                excess.append(sign * (value - limit) / (abs(limit) or 1.0))
        return max(math.inf if math.isnan(one) else one for one in excess)

    def to_plain(self) -> Any:
        bounds = {"at_most": self.at_most, "at_least": self.at_least}
        given = {name: bound.to_plain() for name, bound in bounds.items() if bound is not None}
        if not given:
            return self.direction
        return ({} if self.direction is None else {"direction": self.direction}) | given


def parse_objectives(
    section: Mapping[str, Any], metrics: Mapping[str, Direction | None], lines: list[str]
) -> tuple[Objective, ...]:
    """The objectives of a section, in its order; each mistake is a line added to `lines`."""
    parsed = [
        objective
        for metric, value in section.items()
        if (objective := _objective(str(metric), value, metrics, lines)) is not None
    ]
    if not lines and not any(objective.direction for objective in parsed):
        lines.append(
            "objectives: must hold at least one metric with a direction, "
            f"but got {', '.join(map(str, section)) or 'none'}"
        )
    return tuple(parsed)


def _objective(
    metric: str, value: Any, metrics: Mapping[str, Direction | None], lines: list[str]
) -> Objective | None:
    place = f"objectives.{metric}"
    if metric not in metrics:
        lines.append(unknown("objectives", metric, list(metrics)))
        return None
    given = value if isinstance(value, dict) else {"direction": value}
    found = [unknown(place, str(key), _KEYS) for key in given if key not in _KEYS]
    if not any(key in given for key in _KEYS):
        found.append(f"{place}: must have a direction, at_most or at_least, but got {value!r}")
    found += _direction_problems(place, given, metrics[metric])
    bounds = {key: _bound(f"{place}.{key}", given[key], found) for key in _KEYS[1:] if key in given}
    low, high = bounds.get("at_least"), bounds.get("at_most")
    if low and high and low.of_dense == high.of_dense and low.number > high.number:
        found.append(
            f"{place}: at_least <= at_most must hold, "
            f"but got (at_least={low.to_plain()}, at_most={high.to_plain()})"
        )
    lines.extend(found)
    return None if found else Objective(metric, given.get("direction"), **bounds)


def _direction_problems(
    place: str, given: Mapping[str, Any], better: Direction | None
) -> list[str]:
    if "direction" not in given:
        return []
    direction = given["direction"]
    allowed = get_args(Direction) if better is None else (better,)
    if direction in allowed:
        return []
    return [f"{place}: must be {' or '.join(map(repr, allowed))}, but got {direction!r}"]


def _bound(place: str, value: Any, lines: list[str]) -> Bound | None:
    of_dense = _OF_DENSE.fullmatch(value) if isinstance(value, str) else None
    try:
        number = float(of_dense[1] if of_dense else value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        lines.append(f"{place}: must be a number or a multiple like '0.5*dense', but got {value!r}")
        return None
    return Bound(number, of_dense is not None)
