"""Reads the `policy.steps` section of a space file: steps, branches, domains at their leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from autocomp.errors import SpaceError, unknown
from autocomp.patterns import Per
from autocomp.policy import STEPS
from autocomp.space.checking import order_problems, value_problems
from autocomp.space.domains import Domain, is_domain, looks_like_domain, parse_domain
from autocomp.space.steps import NO_STEP, Branch, Item, SearchStep, fields_by_unit

FIXED_FIELDS = ("layers", "exclude", "qat")
"""What decides which parameters there are, or which steps may follow, cannot itself be one."""


def parse_steps(value: Any, lines: list[str]) -> tuple[Item, ...]:
    """The items of `policy.steps`; each mistake is a line added to `lines`."""
    if not isinstance(value, list) or not value:
        lines.append(f"policy.steps: must be a list of at least one step, but got {value!r}")
        return ()
    found: list[str] = []
    parsed = [
        _item(one, f"policy.steps.{index}", f"steps.{index}", found)
        for index, one in enumerate(value)
    ]
    items = tuple(item for item in parsed if item is not None)
    lines += found or order_problems(items)
    return items


def _item(value: Any, place: str, name: str, lines: list[str]) -> Item | None:
    if isinstance(value, dict) and "choice" in value and "kind" not in value:
        return _branch(value, place, name, lines)
    return _step(value, place, name, lines)


def _branch(value: dict[str, Any], place: str, name: str, lines: list[str]) -> Branch | None:
    given = value["choice"]
    found = [
        f"{place}: unknown key {key!r}; known keys: choice" for key in value if key != "choice"
    ]
    if not isinstance(given, list) or not given:
        found.append(f"{place}.choice: must be a list of at least one step, but got {given!r}")
        given = []
    steps = [
        None if one in (None, NO_STEP) else _step(one, f"{place}.choice.{index}", name, found)
        for index, one in enumerate(given)
    ]
    nulls = sum(one in (None, NO_STEP) for one in given)
    if nulls > 1:
        found.append(f"{place}.choice: must hold null at most once, but holds it {nulls} times")
    lines += found
    return None if found else Branch(name, _labelled(name, steps))


def _labelled(name: str, steps: list[SearchStep | None]) -> dict[str, SearchStep | None]:
    """The steps by kind; by kind and place where two are of one kind."""
    kinds = [NO_STEP if step is None else step.kind for step in steps]
    options: dict[str, SearchStep | None] = {}
    for index, (kind, step) in enumerate(zip(kinds, steps, strict=True)):
        label = kind if kinds.count(kind) == 1 else f"{kind}.{index}"
        options[label] = step and replace(step, name=f"{name}.{label}")
    return options


def _step(value: Any, place: str, name: str, lines: list[str]) -> SearchStep | None:
    if not isinstance(value, dict) or "kind" not in value:
        shown = f"the keys {', '.join(map(str, value))}" if isinstance(value, dict) else repr(value)
        lines.append(f"{place}: must have a kind, or be {{choice: [steps]}}, but got {shown}")
        return None
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in STEPS:
        lines.append(unknown(f"{place}.kind", str(kind), list(STEPS)))
        return None
    fields: dict[str, Any] = {}
    found: dict[str, list[str]] = {}
    for key, one in value.items():
        field = str(key)
        try:
            if field not in ("kind", "per"):
                fields[field] = _field(field, one, f"{place}.{field}", kind)
        except SpaceError as failure:
            found[field] = list(failure.problems)
    step = SearchStep(place, f"{name}.{kind}", kind, fields, value.get("per"))
    if "per" in value:
        found["per"] = _per_problems(step, reported=found)
    problems = [line for part in found.values() for line in part] + value_problems(step, found)
    lines += problems
    return None if problems else step


def _field(field: str, value: Any, place: str, kind: str) -> Any:
    """A field's value with its domains parsed; `SpaceError` lists what is wrong with them."""
    if not isinstance(value, dict) or field not in STEPS[kind].model_fields:
        return value
    if is_domain(value) or looks_like_domain(value):
        if field in FIXED_FIELDS:
            raise SpaceError(
                f"{place}: must be fixed, but got {value!r}; a choice of whole steps tries several"
            )
        return parse_domain(value, place)
    if field not in fields_by_unit(kind):
        return value
    leaves: dict[str, Any] = {}
    lines: list[str] = []
    for unit, one in value.items():
        try:
            leaves[str(unit)] = (
                parse_domain(one, f"{place}.{unit}") if isinstance(one, dict) else one
            )
        except SpaceError as failure:
            lines += failure.problems
    if lines:
        raise SpaceError(*lines)
    return leaves


def _per_problems(step: SearchStep, reported: dict[str, list[str]]) -> list[str]:
    place, known = f"{step.place}.per", get_args(Per)
    fields = fields_by_unit(step.kind)
    values = [step.fields.get(field) for field in fields]
    if step.per not in known:
        return [unknown(place, str(step.per), known)]
    if not fields:
        return [f"{place}: must be left out, for no field of {step.kind} takes a value by module"]
    if any(isinstance(value, dict) for value in values):
        return [f"{place}: must be left out beside a mapping by module, but got {step.per!r}"]
    if not any(isinstance(value, Domain) for value in values) and not reported.keys() & fields:
        return [f"{place}: must stand beside a domain in {' or '.join(fields)}, but none is there"]
    return []
