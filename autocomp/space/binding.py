"""Binds a search space to a model: patterns become layers, `per` one parameter a unit."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from autocomp.decisions import Decision, validate
from autocomp.errors import PolicyError, SpaceError, nearest
from autocomp.patterns import matching, unit_of
from autocomp.policy import STEPS, Policy, Retrain, is_idle
from autocomp.space import ladder as ladders
from autocomp.space.domains import Choice, Domain
from autocomp.space.locating import locate
from autocomp.space.space import SearchSpace
from autocomp.space.steps import Branch, Item, SearchStep, fields_by_unit, pattern_fields

Suggest = Callable[[str, Domain], Any]
ACTS_ON = {
    "prune_channels": "2-d convolutions",
    "prune_heads": "attention layers of autocomp's own",
    "prune_width": "feed-forward and recurrent layers of autocomp's own",
    "drop_layers": "the layers of an nn.ModuleDict",
    "gamma_l1": "2-d BatchNorm layers",
    "retrain": "parameters",
    "quantize": "2-d convolutions, linear layers and embeddings",
    "fixed_point": "2-d convolutions, linear layers, embeddings and BatchNorm layers",
}
"""Kind of step -> what it finds in a model."""


@dataclass(frozen=True)
class BoundSpace:
    """A space whose parameters are those of one model."""

    items: tuple[Item, ...]
    depths: Mapping[str, int] = field(default_factory=dict)
    image_size: int | None = None

    @cached_property
    def parameters(self) -> dict[str, Domain]:
        """Every parameter by name, those of all branches included, in the order of the file."""
        found: dict[str, Domain] = {}
        for item in self.items:
            if isinstance(item, Branch):
                found[item.name] = item.domain
            for step in _steps_of(item):
                found |= {step.parameter(field, unit): one for field, unit, one in step.domains()}
        return found

    @cached_property
    def conditions(self) -> dict[str, tuple[str, str]]:
        """A parameter inside a branch -> (the branch's parameter, the value it is active at)."""
        return {
            step.parameter(field, unit): (item.name, label)
            for item in self.items
            if isinstance(item, Branch)
            for label, step in item.options.items()
            if step is not None
            for field, unit, _ in step.domains()
        }

    def sample(self, suggest: Suggest) -> Policy:
        """The policy with `suggest(name, domain)` for the value of every active parameter.

        Parameters are asked for in the order of the file, those of a branch after the branch.
        """
        steps = [
            step.values(suggest)
            for item in self.items
            if (step := _chosen(item, suggest)) is not None
        ]
        return validate(Policy, {"steps": steps}, "policy", PolicyError)

    def policy(self, values: Mapping[str, Any]) -> Policy:
        """The policy that the values of its active parameters describe; a rung of the ladder, say.

        `PolicyError` for a parameter that is missing or has a value outside its domain.
        """

        def given(name: str, domain: Domain) -> Any:
            if name not in values:
                raise PolicyError(f"{name}: must be given, but is missing")
            if not domain.contains(values[name]):
                raise PolicyError(
                    f"{name}: must be in {domain.to_dict()}, but got {values[name]!r}"
                )
            return values[name]

        return self.sample(given)

    def values(self, policy: Policy) -> dict[str, Any]:
        """The values of its active parameters that describe `policy`: the inverse of `policy`.

        `PolicyError` says where a policy is not one of this space.
        """
        return locate(self.items, policy)

    def random(self, rng: random.Random) -> Policy:
        """A policy drawn with every parameter independent and as its domain has it."""
        return self.sample(lambda _, domain: domain.at(rng.random()))

    def size(self) -> float:
        """The number of assignments of active parameters; infinite if one is continuous."""
        return _product(_item_size(item) for item in self.items)

    def essence(self, policy: Policy) -> str:
        """The id of `policy` without the steps that change nothing: policies that do the same."""
        steps = (step for step in policy.steps if not self._is_idle(step))
        return Policy.model_construct(steps=tuple(steps)).id

    def _is_idle(self, step: Decision) -> bool:
        return is_idle(step, self.depths, self.image_size)

    def ladder(self, count: int) -> list[dict[str, Any]]:
        """Parameter values of at most `count` uniform policies, the most telling first."""
        return ladders.ladder(self.items, count)

    def retraining(self) -> list[Retrain]:
        """The retrain steps as the ladder has them: longest, at the middle of other ranges."""
        steps = [step for step in ladders.first_options(self.items) if step.kind == "retrain"]
        return [Retrain.model_validate(ladders.default_values(step)) for step in steps]

    def control(self) -> Policy:
        """The policy that retrains as the ladder does, but compresses nothing."""
        return Policy(steps=tuple(self.retraining()))


def bind(
    space: SearchSpace,
    layers: Mapping[str, Sequence[str]],
    depths: Mapping[str, tuple[int, int]] | None = None,
    image_size: int | None = None,
) -> BoundSpace:
    """`space` with one parameter for each unit of the model that a step's patterns mean.

    `layers` maps a kind of step to the names in this model that it can act on, `depths` a container
    of layers to the fewest and the most of them that may be kept; its images are `image_size`
    pixels a side. `SpaceError` lists every pattern and every module of a mapping that means none of
    them, with the nearest names, and every `keep` outside these.
    """
    lines: list[str] = []
    items = tuple(_bound(item, layers, lines) for item in space.steps)
    for item in items:
        for step in _steps_of(item):
            lines += _depth_problems(step, depths or {})
    if lines:
        raise SpaceError(*lines)
    most = {name: most for name, (_, most) in (depths or {}).items()}
    return BoundSpace(items, most, image_size)


def _bound(item: Item, layers: Mapping[str, Sequence[str]], lines: list[str]) -> Item:
    if isinstance(item, SearchStep):
        return _bound_step(item, layers.get(item.kind, ()), lines)
    options = {
        label: step and _bound_step(step, layers.get(step.kind, ()), lines)
        for label, step in item.options.items()
    }
    return Branch(item.name, options)


def _bound_step(step: SearchStep, names: Sequence[str], lines: list[str]) -> SearchStep:
    if not pattern_fields(step.kind):
        return step
    if not names:
        lines.append(
            f"{step.place}: {step.kind} must have something to act on in this model, "
            f"but has nothing: it acts on {ACTS_ON[step.kind]}"
        )
        return step
    found = [
        line
        for field in pattern_fields(step.kind)
        for pattern in _patterns(step, field)
        for line in _pattern_problems(step, field, pattern, names)
    ]
    matched = names if found else _matched(step, names, found)
    found += _unit_problems(step, matched)
    lines += found
    return step if found else replace(step, fields=_expanded(step, matched))


def _pattern_problems(
    step: SearchStep, field: str, pattern: str, names: Sequence[str]
) -> list[str]:
    """A field declared as one string must hold a name, any other a pattern that matches one."""
    place = f"{step.place}.{field}"
    if STEPS[step.kind].model_fields[field].annotation is str:
        return [] if pattern in names else [_no_match(place, "name", pattern, step, names)]
    if matching(names, [pattern]):
        return []
    return [_no_match(place, "match", pattern, step, _with_parents(names))]


def _patterns(step: SearchStep, field: str) -> list[str]:
    """All patterns a field can hold: those it has, or those of every value of its choice."""
    value = step.fields.get(field, ())
    options = value.values if isinstance(value, Choice) else [value]
    return [str(one) for option in options for one in _listed(option)]


def _listed(value: Any) -> Sequence[Any]:
    return [value] if isinstance(value, str) else value


def _matched(step: SearchStep, names: Sequence[str], lines: list[str]) -> list[str]:
    """The names a step acts on: what its first patterns match and `exclude` leaves."""
    decision = STEPS[step.kind].model_validate(step.example())
    first = pattern_fields(step.kind)[0]
    patterns, exclude = _listed(getattr(decision, first)), getattr(decision, "exclude", ())
    matched = matching(names, patterns, exclude)
    if not matched:
        lines.append(
            f"{step.place}.{first}: must leave {step.kind} something to act on, "
            f"but {list(patterns)} without {list(exclude)} leaves nothing"
        )
    return matched


def _unit_problems(step: SearchStep, names: Sequence[str]) -> list[str]:
    return [
        _no_match(f"{step.place}.{field}.{unit}", "name", unit, step, _with_parents(names))
        for field in fields_by_unit(step.kind)
        if isinstance(step.fields.get(field), Mapping)
        for unit in step.fields[field]
        if not any(name == unit or name.startswith(f"{unit}.") for name in names)
    ]


def _depth_problems(step: SearchStep, depths: Mapping[str, tuple[int, int]]) -> list[str]:
    """A `keep` that none of the containers it may apply to allows would be searched in vain."""
    known = {name: depths[name] for name in _patterns(step, "layers") if name in depths}
    if step.kind != "drop_layers" or not known:
        return []
    keep = step.fields["keep"]
    name = max(known, key=lambda one: known[one][1])
    fewest, most = known[name]
    if all(fewest <= one <= most for one in _numbers(keep)):
        return []
    return [
        f"{step.place}.keep: must be from {fewest} to {most} of the layers of {name!r}, "
        f"but got {keep.to_dict() if isinstance(keep, Domain) else keep}"
    ]


def _numbers(value: Any) -> list[float]:
    """The bounds or values of what stands at a field that takes a number."""
    values = value.values if isinstance(value, Choice) else [value]
    if isinstance(value, Domain) and not isinstance(value, Choice):
        values = [value.low, value.high]
    return [one for one in values if isinstance(one, int | float)]


def _with_parents(names: Sequence[str]) -> list[str]:
    parents = (name[:end] for name in names for end, one in enumerate(name) if one == ".")
    return list(dict.fromkeys([*names, *parents]))


def _no_match(place: str, verb: str, pattern: str, step: SearchStep, known: Sequence[str]) -> str:
    close = nearest(pattern, known) or sorted(known)[:3]
    return (
        f"{place}: must {verb} a layer that {step.kind} can act on, "
        f"but {pattern!r} matches none; nearest: {', '.join(close)}"
    )


def _expanded(step: SearchStep, names: Sequence[str]) -> dict[str, Any]:
    """The step's fields, a domain in a field by unit replaced by a mapping from units to it."""
    per = step.per
    if per is None or per == "pattern":
        return dict(step.fields)
    units = list(dict.fromkeys(unit_of(name, per) for name in names))
    by_unit = fields_by_unit(step.kind)
    return {
        field: dict.fromkeys(units, value)
        if field in by_unit and isinstance(value, Domain)
        else value
        for field, value in step.fields.items()
    }


def _steps_of(item: Item) -> list[SearchStep]:
    if isinstance(item, SearchStep):
        return [item]
    return [step for step in item.options.values() if step is not None]


def _chosen(item: Item, suggest: Suggest) -> SearchStep | None:
    return item if isinstance(item, SearchStep) else item.options[suggest(item.name, item.domain)]


def _item_size(item: Item) -> float:
    if isinstance(item, SearchStep):
        return _product(domain.size() for _, _, domain in item.domains())
    return sum(1 if step is None else _item_size(step) for step in item.options.values())


def _product(sizes: Iterator[float]) -> float:
    """Their product; infinity first, since it cannot be multiplied with a very large int."""
    factors = list(sizes)
    return math.inf if math.inf in factors else math.prod(factors)
