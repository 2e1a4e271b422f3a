"""Steps of a space file: steps of a policy whose fields may hold domains, and branches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from autocomp.patterns import Per
from autocomp.policy import STEPS
from autocomp.space.domains import Choice, Domain

NO_STEP = "none"


@dataclass(frozen=True)
class SearchStep:
    """A step whose fields are values, domains, or mappings by module with either as values.

    `place` is where it stands in the file (`policy.steps.1.choice.0`), `name` what its parameters'
    names begin with (`steps.1.quantize`).
    """

    place: str
    name: str
    kind: str
    fields: Mapping[str, Any]
    per: Per | None = None

    def domains(self) -> Iterator[tuple[str, str | None, Domain]]:
        """(field, module or None, domain) of every domain, in the order of the file."""
        for field, value in self.fields.items():
            leaves = value.items() if isinstance(value, Mapping) else [(None, value)]
            for unit, leaf in leaves:
                if isinstance(leaf, Domain):
                    yield field, unit, leaf

    def parameter(self, field: str, unit: str | None) -> str:
        """The name of the parameter that stands at a field, or at a module's entry in it."""
        return f"{self.name}.{field}" + ("" if unit is None else f"[{unit}]")

    def values(self, value_of: Callable[[str, Domain], Any]) -> dict[str, Any]:
        """The step as a plain mapping, each domain replaced by `value_of(parameter, domain)`."""

        def leaf(field: str, unit: str | None, value: Any) -> Any:
            if isinstance(value, Domain):
                return value_of(self.parameter(field, unit), value)
            return value

        fields = {
            field: {unit: leaf(field, unit, one) for unit, one in value.items()}
            if isinstance(value, Mapping)
            else leaf(field, None, value)
            for field, value in self.fields.items()
        }
        return {"kind": self.kind, **fields}

    def example(self) -> dict[str, Any]:
        """The step as a plain mapping with the first value of every domain."""
        return self.values(lambda _, domain: domain.at(0))

    def to_dict(self) -> dict[str, Any]:
        per = {} if self.per is None else {"per": self.per}
        return {"kind": self.kind, **per, **self.values(lambda _, domain: domain.to_dict())}


@dataclass(frozen=True)
class Branch:
    """One step of several, or none: `options` maps the labels of a choice to them."""

    name: str
    options: Mapping[str, SearchStep | None]

    @property
    def domain(self) -> Choice:
        return Choice(tuple(self.options))

    def to_dict(self) -> dict[str, Any]:
        return {"choice": [step and step.to_dict() for step in self.options.values()]}


Item = SearchStep | Branch


def fields_by_unit(kind: str) -> list[str]:
    """The fields of a kind of step that take one value or a mapping from modules to values."""
    fields = STEPS[kind].model_fields
    return [name for name, field in fields.items() if _takes_mapping(field.annotation)]


def pattern_fields(kind: str) -> list[str]:
    """The fields of a kind of step that hold patterns over module names."""
    fields = STEPS[kind].model_fields
    return [
        name
        for name, field in fields.items()
        if name == "layers" or field.annotation == tuple[str, ...]
    ]


def _takes_mapping(annotation: Any) -> bool:
    return any(get_origin(option) is dict for option in get_args(annotation))
