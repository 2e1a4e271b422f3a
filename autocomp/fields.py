"""What steps are made of: patterns over module names, and numbers that differ by module.

A number that may differ between parts of the model is one value, or a mapping from a module's name
to the value for all that lies below it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)

from autocomp.decisions import Decision

WeightBits = Literal[2, 3, 4, 5, 6, 8, 16, 32]
"""Widths that there are; 32 bits are left as they are."""
WEIGHT_BITS: tuple[int, ...] = get_args(WeightBits)
GroupSize = Literal[16, 32, 64, 128]
"""Inputs that may share a scale."""
Value = TypeVar("Value", int, float)


class PolicyStep(Decision):
    """What every step shares: its numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


def _patterns(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _one_or_list(value: tuple[str, ...]) -> str | list[str]:
    return value[0] if len(value) == 1 else list(value)


Patterns = Annotated[
    tuple[str, ...],
    BeforeValidator(_patterns, json_schema_input_type=str | list[str]),
    PlainSerializer(_one_or_list),
]


def _check_ratio(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"must be in [0, 1), but got {value!r}")
    return float(value)


def _one_of(known: Sequence[int]) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or value not in known:
            raise ValueError(f"must be one of {', '.join(map(str, known))}, but got {value!r}")
        return int(value)

    return check


StoredBits = Annotated[int, AfterValidator(_one_of(WEIGHT_BITS[:-1]))]
"""Widths of what is stored in fewer bits than fp32."""


def _by_unit(check: Callable[[Any], Value]) -> Callable[[Any], Value | dict[str, Value]]:
    """`check` for a value or for every value of a mapping; all mistakes of one are reported."""

    def checked(value: Any) -> Value | dict[str, Value]:
        if not isinstance(value, Mapping):
            return check(value)
        values: dict[str, Value] = {}
        lines: list[str] = []
        for unit, one in value.items():
            try:
                values[str(unit)] = check(one)
            except ValueError as failure:
                lines.append(f"{unit}: {failure}")
        if lines:
            raise ValueError("\n".join(lines))
        return values

    return checked


def _schema_by_unit(leaf: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [leaf, {"type": "object", "additionalProperties": leaf}]})


RatioByUnit = Annotated[
    float | dict[str, float],
    PlainValidator(_by_unit(_check_ratio)),
    _schema_by_unit({"type": "number", "minimum": 0, "exclusiveMaximum": 1}),
]
BitsByUnit = Annotated[
    int | dict[str, int],
    PlainValidator(_by_unit(_one_of(WEIGHT_BITS))),
    _schema_by_unit({"enum": list(WEIGHT_BITS)}),
]


def value_for(name: str, value: Value | dict[str, Value], default: Value) -> Value:
    """The value that applies to module `name`: the longest key that is `name` or a parent of it."""
    if not isinstance(value, dict):
        return value
    above = [unit for unit in value if name == unit or name.startswith(f"{unit}.")]
    return value[max(above, key=len)] if above else default
