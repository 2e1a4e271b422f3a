"""Policies that change one layer alone, by one value: they show what each layer can bear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from autocomp.policy import NOTHING, Policy
from autocomp.space.binding import BoundSpace
from autocomp.space.domains import Choice, Domain
from autocomp.space.ladder import default_values
from autocomp.space.space import SearchSpace
from autocomp.space.steps import Branch, Item, SearchStep, fields_by_unit

QUANTILES = (0.25, 0.5, 0.75, 1.0)
"""Of a range of ratios: where it is tried."""
DECIMALS = 3


@dataclass(frozen=True)
class Probe:
    """`layer` alone at `value`: so many bits, or that ratio of what a `kind` of step removes."""

    layer: str
    kind: str
    value: float
    policy: Policy


def by_layer(space: SearchSpace) -> SearchSpace:
    """`space` with a parameter a layer wherever it searches bits or a ratio."""
    return replace(space, steps=tuple(_by_layer(item) for item in space.steps))


def _by_layer(item: Item) -> Item:
    if isinstance(item, SearchStep):
        is_searched = any(isinstance(item.fields.get(one), Domain) for one in _fields(item))
        return replace(item, per="layer") if is_searched else item
    options = {label: step and replace(step, per="layer") for label, step in item.options.items()}
    return Branch(item.name, options)


def _fields(step: SearchStep) -> list[str]:
    return fields_by_unit(step.kind)


def probes(bound: BoundSpace) -> list[Probe]:
    """Each layer that a space bound `by_layer` searches, at each value that changes something.

    Other settings of its step are where the ladder has them. A choice is tried whole, a range at
    its `QUANTILES`. A layer that two steps search in the same way is tried once.
    """
    found: dict[str, Probe] = {}
    for item in bound.items:
        for step in [item] if isinstance(item, SearchStep) else item.options.values():
            if step is not None:
                for one in _probes_of(step):
                    found.setdefault(one.policy.id, one)
    return list(found.values())


def _probes_of(step: SearchStep) -> Iterator[Probe]:
    for field, layer, domain in step.domains():
        if field not in _fields(step) or layer is None:
            continue
        for value in _values(domain):
            if value != NOTHING[step.kind][1]:
                alone = {"layers": [layer], "exclude": [], field: {layer: value}}
                # nothing is retrained, so nothing is trained through either
                rounds = {"qat": False} if step.fields.get("qat") else {}
                settings = default_values(step) | alone | rounds
                policy = Policy.model_validate({"steps": [settings]})
                yield Probe(layer, step.kind, value, policy)


def _values(domain: Domain) -> list[float]:
    """What is tried of a domain, the mildest first for ratios, the widest for bits."""
    if isinstance(domain, Choice):
        numbers = [one for one in domain.values if isinstance(one, int | float)]
        return sorted(numbers, reverse=all(isinstance(one, int) for one in numbers))
    return list(dict.fromkeys(round(domain.at(one), DECIMALS) for one in QUANTILES))
