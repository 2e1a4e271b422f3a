"""Finds a policy's place in a space: the values of its parameters that give that very policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import ValidationError

from autocomp.decisions import Decision, validate
from autocomp.errors import PolicyError
from autocomp.policy import STEPS, Policy
from autocomp.space.domains import Choice, Domain, IntRange
from autocomp.space.steps import Branch, Item, SearchStep


def locate(items: Sequence[Item], policy: Policy) -> dict[str, Any]:
    """The values of all active parameters that make `policy`.

    Where the space has a value `per` unit, one may stand for all. `PolicyError` names the first
    step that is not the space's, and what the space has there.
    """
    problems: list[tuple[int, str]] = []
    for values in _ways(tuple(items), policy.steps, 0, problems):
        return values
    _, first = max(problems, key=lambda one: one[0])
    raise PolicyError(first)


def _ways(
    items: tuple[Item, ...],
    steps: tuple[Decision, ...],
    index: int,
    problems: list[tuple[int, str]],
) -> Iterator[dict[str, Any]]:
    """Every way to read the steps from `index` on as values of `items`."""
    if not items:
        if index == len(steps):
            yield {}
        else:
            problems.append((index, f"steps.{index}: must not be there, for the space has no more"))
        return
    first, rest = items[0], items[1:]
    options = first.options if isinstance(first, Branch) else {"": first}
    for label, option in options.items():
        own: dict[str, Any] = {first.name: label} if isinstance(first, Branch) else {}
        if option is not None:
            try:
                own |= _values(option, steps, index)
            except PolicyError as problem:
                problems.append((index, str(problem)))
                continue
        for others in _ways(rest, steps, index + (option is not None), problems):
            yield own | others


def _values(step: SearchStep, steps: Sequence[Decision], index: int) -> dict[str, Any]:
    """The values of a step's parameters that make the one at `index`."""
    where, ours = f"steps.{index}", STEPS[step.kind]
    if index == len(steps):
        raise PolicyError(f"{where}: must be a {step.kind} ({step.place}), but is missing")
    given = steps[index]
    if not isinstance(given, ours):
        kind = next(name for name, one in STEPS.items() if isinstance(given, one))
        raise PolicyError(f"{where}: must be a {step.kind} ({step.place}), but is a {kind}")
    values = _parameters(step, where, given)
    made = validate(ours, step.values(lambda name, _: values[name]), where, PolicyError)
    for field in ours.model_fields:
        have, got = getattr(made, field), getattr(given, field)
        stands_for_all = step.per is not None and not isinstance(got, Mapping)
        if isinstance(have, Mapping) and stands_for_all:
            continue
        if have != got:
            raise PolicyError(
                f"{where}.{field}: must be {have!r}, as in the space, but got {got!r}"
            )
    return values


def _parameters(step: SearchStep, where: str, given: Decision) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field, unit, domain in step.domains():
        name, value = f"{where}.{field}", getattr(given, field)
        if unit is not None and isinstance(value, Mapping):
            name = f"{name}.{unit}"
            if unit not in value:
                raise PolicyError(f"{name}: must be given, but is missing")
            value = value[unit]
        gives = partial(_gives, given, field, value=value)
        values[step.parameter(field, unit)] = _value(name, domain, value, gives)
    return values


def _value(where: str, domain: Domain, value: Any, gives: Callable[[Any], bool]) -> Any:
    """The domain's own value for `value`; `gives` tells whether one of a choice is read as it."""
    if isinstance(domain, Choice):
        value = next(filter(gives, domain.values), value)
    elif isinstance(domain, IntRange) and value == int(value):
        value = int(value)
    if not domain.contains(value):
        raise PolicyError(f"{where}: must be in {domain.to_dict()}, but got {value!r}")
    return value


def _gives(step: Decision, field: str, written: Any, value: Any) -> bool:
    """Whether the step would hold `value` in a field if `written` stood there."""
    try:
        made = type(step).model_validate(step.model_dump() | {field: written})
    except ValidationError:
        return False
    return bool(getattr(made, field) == value)
