"""Policies that change one layer alone, by one value: they show what each layer can bear."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from autocomp.policy import NOTHING, Policy, Retrain
from autocomp.space.binding import BoundSpace
from autocomp.space.domains import Choice, Domain
from autocomp.space.ladder import default_values
from autocomp.space.space import SearchSpace
from autocomp.space.steps import Branch, Item, SearchStep, fields_by_unit

QUANTILES = (0.25, 0.5, 0.75, 1.0)
"""Of a range of ratios: where it is tried."""
DECIMALS = 3
WIDTHS = ("activation_bits", "batch_norm_bits")
"""Of fixed point, beside `bits`: one value for all layers of a step, here read layer by layer."""


@dataclass(frozen=True)
class Probe:
    """`layer` alone with `field` at `value`: so many bits, or that ratio of what is removed.

    `kind` is that of the step, the first of `policy`.
    """

    layer: str
    kind: str
    field: str
    value: float
    policy: Policy


def by_layer(space: SearchSpace) -> SearchSpace:
    """`space` with a parameter a layer wherever it searches bits or a ratio."""
    return replace(space, steps=tuple(_by_layer(item) for item in space.steps))


def _by_layer(item: Item) -> Item:
    if isinstance(item, SearchStep):
        return _step_by_layer(item)
    options = {label: step and _step_by_layer(step) for label, step in item.options.items()}
    return Branch(item.name, options)


def _step_by_layer(step: SearchStep) -> SearchStep:
    fields = dict(step.fields)
    if _widths(step) and not isinstance(fields["bits"], (Domain, Mapping)):
        fields["bits"] = Choice((fields["bits"],))
    is_searched = any(isinstance(fields.get(one), Domain) for one in fields_by_unit(step.kind))
    return replace(step, fields=fields, per="layer") if is_searched else step


def _widths(step: SearchStep) -> list[str]:
    """The `WIDTHS` that a step searches."""
    is_fixed = step.kind == "fixed_point"
    return [field for field, _, _ in step.domains() if is_fixed and field in WIDTHS]


def probes(bound: BoundSpace, retrain_steps: int = 0) -> list[Probe]:
    """Each layer that a space bound `by_layer` searches, at each value that changes something.

    Other settings of its step are where the ladder has them, but for other bits of fixed point that
    are searched: those are 32. A choice is tried whole, a range at its `QUANTILES`. A layer that
    two steps search in the same way is tried once. What can be trained once the layer is
    compressed is then retrained for `retrain_steps`, otherwise as the last retrain of the space.
    """
    as_in_space = (bound.retraining() or [Retrain(steps=0)])[-1]
    whole = {"steps": retrain_steps, "train": ("**",), "exclude": ()}  # whatever layer it is
    retrain = as_in_space.model_copy(update=whole)
    found: dict[str, Probe] = {}
    for item in bound.items:
        for step in [item] if isinstance(item, SearchStep) else item.options.values():
            if step is not None:
                for one in _probes_of(step, retrain):
                    found.setdefault(one.policy.id, one)
    return list(found.values())


def held(space: SearchSpace) -> list[str]:
    """A line for all else that is searched of the steps whose bits or ratios are read."""
    lines: list[str] = []
    for item in space.steps:
        for step in [item] if isinstance(item, SearchStep) else item.options.values():
            lines += _held(step) if step is not None else ()
    return lines


def _held(step: SearchStep) -> list[str]:
    read = (*fields_by_unit(step.kind), *_widths(step))
    domains = {field: domain for field, _, domain in step.domains()}
    if not domains.keys() & set(read):
        return []
    values = default_values(step)
    return [
        f"{step.place}.{field}: read at {values[field]} alone, of {_told(domain)}"
        for field, domain in domains.items()
        if field not in read and _told(domain) != str(values[field])
    ]


def _told(domain: Domain) -> str:
    if isinstance(domain, Choice):
        return ", ".join(map(str, domain.values))
    return f"{domain.at(0)} to {domain.at(1)}"


def _probes_of(step: SearchStep, retrain: Retrain) -> Iterator[Probe]:
    for field, layer, domain in _searched(step):
        for value in _values(domain):
            if value != NOTHING[step.kind][1]:
                settings = _alone(step, field, layer, value)
                policy = Policy.model_validate({"steps": _with_retrain(settings, retrain)})
                yield Probe(layer, step.kind, field, value, policy)


def _searched(step: SearchStep) -> Iterator[tuple[str, str, Domain]]:
    """(field, layer, domain) of all that is tried."""
    for field, layer, domain in step.domains():
        if field in _widths(step):
            yield from ((field, one, domain) for one in step.fields["bits"])
        elif field in fields_by_unit(step.kind) and layer is not None:
            yield field, layer, domain


def _alone(step: SearchStep, field: str, layer: str, value: float) -> dict[str, Any]:
    """The settings of a step that changes a layer by one value."""
    own, nothing = NOTHING[step.kind]
    settings = default_values(step) | dict.fromkeys(_widths(step), nothing) | {field: value}
    of_layer = {layer: value if field == own else nothing}
    return settings | {"layers": [layer], "exclude": [], own: of_layer}


def _with_retrain(settings: dict[str, Any], retrain: Retrain) -> list[Any]:
    """A step, and the retraining after it: what is rounded for good is not trained."""
    is_rounded = settings["kind"] in ("quantize", "fixed_point") and not settings.get("qat")
    if retrain.steps and not is_rounded:
        return [settings, retrain]
    return [settings | ({"qat": False} if settings.get("qat") else {})]


def _values(domain: Domain) -> list[float]:
    """What is tried of a domain, the mildest first for ratios, the widest for bits."""
    if isinstance(domain, Choice):
        numbers = [one for one in domain.values if isinstance(one, int | float)]
        return sorted(numbers, reverse=all(isinstance(one, int) for one in numbers))
    return list(dict.fromkeys(round(domain.at(one), DECIMALS) for one in QUANTILES))
