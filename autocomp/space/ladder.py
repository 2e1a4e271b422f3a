"""Uniform policies from mild to strong, tried before sampling so that no search starts blind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from autocomp.space.domains import Choice, Domain
from autocomp.space.steps import Branch, Item, SearchStep

STRONGER: dict[str, tuple[Literal["structure", "width"], Literal["up", "down"]]] = {
    "ratio": ("structure", "up"),
    "keep": ("structure", "down"),
    "image_size": ("structure", "down"),
    "bits": ("width", "down"),
}
"""Field -> the axis of the ladder it belongs to, and where on it a model gets smaller."""

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_MOST_WIDTHS = 8
_LARGEST = ("steps",)
"""Fields of which more is better, and only time is lost by it."""


def ladder(items: Sequence[Item], count: int) -> list[dict[str, Any]]:
    """Values of all active parameters for at most `count` policies, the most telling first.

    Every structural parameter stands at the same quantile of its domain, every width at the same
    step of its choices. The mildest policy comes first, then the strongest, then whatever is
    farthest from those before it.
    """
    points: dict[tuple[Any, ...], tuple[float, float]] = {}
    rungs: list[dict[str, Any]] = []
    for strength, width in itertools.product(STRENGTHS, _width_fractions(items)):
        values = _rung(items, {"structure": strength, "width": width})
        if tuple(values.values()) not in points:
            points[tuple(values.values())] = (strength, width)
            rungs.append(values)
    order = _farthest_first(list(points.values()))
    return [rungs[index] for index in order[:count]]


def default_values(step: SearchStep) -> dict[str, Any]:
    """The step as a plain mapping with every parameter where the ladder has it by default."""
    values = _defaults(step)
    return step.values(lambda name, _: values[name])


def _defaults(step: SearchStep) -> dict[str, Any]:
    return {
        step.parameter(field, unit): _default(field, domain)
        for field, unit, domain in step.domains()
    }


def first_options(items: Sequence[Item]) -> Iterator[SearchStep]:
    """The steps of the policy that takes the first option of every branch that is a step."""
    for item in items:
        step = item if isinstance(item, SearchStep) else item.options[_first_label(item)]
        if step is not None:
            yield step


def _first_label(branch: Branch) -> str:
    steps = [label for label, step in branch.options.items() if step is not None]
    return steps[0] if steps else next(iter(branch.options))


def _rung(items: Sequence[Item], at: Mapping[str, float]) -> dict[str, Any]:
    values: dict[str, Any] = {
        item.name: _first_label(item) for item in items if isinstance(item, Branch)
    }
    for step in first_options(items):
        values |= _defaults(step)
        for field, unit, domain in step.domains():
            if field in STRONGER:
                axis, direction = STRONGER[field]
                fraction = at[axis] if direction == "up" else 1 - at[axis]
                values[step.parameter(field, unit)] = _ascending(domain).at(fraction)
    return values


def _width_fractions(items: Sequence[Item]) -> list[float]:
    sizes = [
        domain.size()
        for step in first_options(items)
        for field, _, domain in step.domains()
        if field in STRONGER and STRONGER[field][0] == "width"
    ]
    count = int(min(max(sizes, default=1), _MOST_WIDTHS))
    return [index / (count - 1) for index in range(count)] if count > 1 else [0.0]


def _default(field: str, domain: Domain) -> Any:
    if isinstance(domain, Choice) and not _is_numeric(domain):
        return domain.values[0]
    return _ascending(domain).at(1.0 if field in _LARGEST else 0.5)


def _ascending(domain: Domain) -> Domain:
    if isinstance(domain, Choice) and _is_numeric(domain):
        numbers: Callable[[Any], Any] = float
        return Choice(tuple(sorted(domain.values, key=numbers)))
    return domain


def _is_numeric(domain: Choice) -> bool:
    return all(isinstance(one, int | float) and not isinstance(one, bool) for one in domain.values)


def _farthest_first(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of `points`, (N, 2): the first, then each as far as can be from all before it."""
    order = [0]
    left = list(range(1, len(points)))
    while left:
        distance = {
            index: min(math.dist(points[index], points[one]) for one in order) for index in left
        }
        farthest = max(left, key=distance.__getitem__)
        order.append(farthest)
        left.remove(farthest)
    return order
