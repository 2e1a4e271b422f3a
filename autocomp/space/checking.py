"""Finds every mistake in a space's steps by building policy steps from the ends of its domains."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from autocomp.decisions import problems
from autocomp.errors import nearest
from autocomp.policy import STEPS, Policy, attached
from autocomp.space.domains import Choice, Domain, IntRange
from autocomp.space.steps import Item, SearchStep

Placed = tuple[int, SearchStep | None]
"""A step, or none, with its index in the space."""

_PROBES = (0.0, 1.0, 0.5, 0.381966)
_MOST_PROBED_VALUES = 1024


def complaints(model: type[BaseModel], value: Mapping[str, Any], place: str) -> list[str]:
    """Every mistake in `value` as a `model`: unknown keys and, in the same go, all the others."""
    try:
        model.model_validate(value)
    except ValidationError as failure:
        lines = problems(failure, place)
    else:
        return []
    known = {key: one for key, one in value.items() if key in model.model_fields}
    if len(known) == len(value):
        return lines
    others = complaints(model, known, place)
    for key in [key for key in value if key not in model.model_fields]:
        # what is there under a misspelt name is not missing as well
        for meant in nearest(str(key), model.model_fields.keys() - known.keys(), count=1):
            missing = f"{place}.{meant}: ".lstrip(".")
            others = [line for line in others if not line.startswith(missing)]
    return lines + others


def value_problems(step: SearchStep, reported: Collection[str]) -> list[str]:
    """What is wrong with a step's fixed values, the ends of its domains, and each choice's values.

    Lines about the fields already `reported` are left out.
    """
    first = step.example()
    searched = {field for field, _, _ in step.domains()}
    lines = _lines(step, first, without=searched.union(reported))
    for field, unit, domain in step.domains():
        others = {*step.fields, *reported} - {field}
        for value in _probes(domain):
            probed = first | {field: value if unit is None else first[field] | {unit: value}}
            found = _lines(step, probed, without=others)
            lines += [line for line in found if line not in lines]
            if found and not isinstance(domain, Choice):
                break
    return lines


def _lines(step: SearchStep, values: Mapping[str, Any], without: Collection[str]) -> list[str]:
    hidden = tuple(f"{step.place}.{field}{end}" for field in without for end in ":.")
    lines = complaints(STEPS[step.kind], values, step.place)
    return [line for line in lines if not line.startswith(hidden)]


def _probes(domain: Domain) -> list[Any]:
    """The ends, then what lies between: all of it where it is little, for a rule may be a list."""
    if isinstance(domain, Choice):
        return list(domain.values)
    probes: list[Any] = [domain.at(fraction) for fraction in _PROBES]
    if isinstance(domain, IntRange) and domain.size() <= _MOST_PROBED_VALUES:
        probes += range(domain.low, domain.high, domain.step)
    return probes


def order_problems(items: Sequence[Item]) -> list[str]:
    """What a policy as a whole refuses in some way the branches may go.

    A policy's rules say of a step that none of some kind may come before it, or that one must come
    after it. So each step is tried where it fares worst: after the first step that may be a
    quantize, with and without qat, and before nothing but the steps that no branch leaves out.
    """
    kinds = [_one_of_each_kind(item) for item in items]
    certain = [(index, one[0]) for index, one in enumerate(kinds) if len(one) == 1]
    first: dict[bool, list[Placed]] = {True: [], False: []}
    lines: list[str] = []
    for index, options in enumerate(kinds):
        after = [one for one in certain if one[0] > index]
        for option, with_qat in itertools.product(options, first):
            retrained = [one for one in certain if first[with_qat] and _trains(one, before=index)]
            before = [*first[True], *retrained] if with_qat else first[False]
            lines += _complaints_about([*before, (index, option), *after])
        for with_qat, found in first.items():
            first[with_qat] = found or [(index, one) for one in options if _rounds(one, with_qat)]
    return list(dict.fromkeys(lines))


def _rounds(step: SearchStep | None, with_qat: bool) -> bool:
    return step is not None and step.kind == "quantize" and _is_attached(step) == with_qat


def _trains(placed: Placed, before: int) -> bool:
    index, step = placed
    return index < before and step is not None and step.kind == "retrain"


def _is_attached(step: SearchStep) -> bool:
    return attached(STEPS[step.kind].model_validate(step.example())) is not None


def _complaints_about(chosen: Sequence[Placed]) -> list[str]:
    """What a policy refuses about the steps chosen, each with its index in the space."""
    steps = [(index, step.example()) for index, step in chosen if step is not None]
    policy = {"steps": [example for _, example in steps]}
    places = [str(index) for index, _ in steps]
    return [f"policy.{_placed(line, places)}" for line in complaints(Policy, policy, "")]


def _placed(line: str, places: Sequence[str]) -> str:
    """`line` with a step's index in the policy replaced by its index in the space."""
    return re.sub(r"\bsteps\.(\d+)", lambda found: f"steps.{places[int(found[1])]}", line)


def _one_of_each_kind(item: Item) -> list[SearchStep | None]:
    """The rules about order look at nothing but kinds, and at what waits for a retrain."""
    if isinstance(item, SearchStep):
        return [item]
    kinds = {step and (step.kind, _is_attached(step)): step for step in item.options.values()}
    return list(kinds.values())
