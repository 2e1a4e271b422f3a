"""The leaves of a space file: sets of values a field may take, each with its own short notation.

`{choice: [a, b]}`, `{uniform: [low, high]}`, `{log_uniform: [low, high]}` and
`{int_range: [low, high], step: 1}`; all bounds are inclusive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autocomp.errors import SpaceError, nearest

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Choice:
    """One of `values`: strings, numbers, booleans or null, all different."""

    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        shown = list(self.values)
        if not self.values:
            raise ValueError("must hold at least one value, but got []")
        for value in self.values:
            if not isinstance(value, str | int | float | None):
                raise ValueError(f"must hold strings, numbers, booleans or null, but got {shown}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"must hold finite numbers, but got {shown}")
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"must hold different values, but got {shown}")

    @classmethod
    def parse(cls, value: Any) -> Choice:
        if not isinstance(value, list):
            raise ValueError(f"must be a list of values, but got {value!r}")
        return cls(tuple(value))

    def to_dict(self) -> dict[str, Any]:
        return {"choice": list(self.values)}

    def at(self, fraction: float) -> Scalar:
        """The value at quantile `fraction` in [0, 1], in the order given."""
        return self.values[min(int(fraction * len(self.values)), len(self.values) - 1)]

    def size(self) -> float:
        return len(self.values)

    def contains(self, value: Any) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Uniform:
    """Any real number in [low, high], all equally likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_order(self.low, self.high)

    @classmethod
    def parse(cls, value: Any) -> Uniform:
        return cls(*_reals(value))

    def to_dict(self) -> dict[str, Any]:
        return {"uniform": [self.low, self.high]}

    def at(self, fraction: float) -> float:
        """The value at quantile `fraction` in [0, 1]."""
        value = self.low * (1 - fraction) + self.high * fraction
        return min(max(value, self.low), self.high)

    def size(self) -> float:
        return 1 if self.low == self.high else math.inf

    def contains(self, value: Any) -> bool:
        return _is_real(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class LogUniform:
    """Any real number in [low, high], its logarithm equally likely everywhere; low is above 0."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low <= 0:
            raise ValueError(f"0 < low must hold, but got {[self.low, self.high]}")
        _check_order(self.low, self.high)

    @classmethod
    def parse(cls, value: Any) -> LogUniform:
        return cls(*_reals(value))

    def to_dict(self) -> dict[str, Any]:
        return {"log_uniform": [self.low, self.high]}

    def at(self, fraction: float) -> float:
        """The value at quantile `fraction` in [0, 1]; the geometric mean of the bounds at 0.5."""
        value = math.pow(self.low, 1 - fraction) * math.pow(self.high, fraction)
        return min(max(value, self.low), self.high)

    def size(self) -> float:
        return 1 if self.low == self.high else math.inf

    def contains(self, value: Any) -> bool:
        return _is_real(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class IntRange:
    """Every `step`-th whole number from `low` to `high`, all equally likely."""

    low: int
    high: int
    step: int = 1

    def __post_init__(self) -> None:
        bounds = [self.low, self.high]
        if not all(_is_whole(bound) for bound in bounds):
            raise ValueError(f"must be [low, high], two whole numbers, but got {bounds}")
        _check_order(self.low, self.high)
        if not _is_whole(self.step) or self.step < 1:
            raise ValueError(f"step must be a whole number >= 1, but got {self.step!r}")
        if (self.high - self.low) % self.step:
            raise ValueError(
                f"high - low must be a multiple of step, but got {bounds} and step {self.step}"
            )

    @classmethod
    def parse(cls, value: Any, step: Any = 1) -> IntRange:
        return cls(*_pair(value), step=step)

    def to_dict(self) -> dict[str, Any]:
        step = {} if self.step == 1 else {"step": self.step}
        return {"int_range": [self.low, self.high], **step}

    def at(self, fraction: float) -> int:
        """The value at quantile `fraction` in [0, 1]."""
        count = self._count()
        return self.low + self.step * min(int(fraction * count), count - 1)

    def size(self) -> float:
        return self._count()

    def contains(self, value: Any) -> bool:
        return _is_whole(value) and value in range(self.low, self.high + 1, self.step)

    def _count(self) -> int:
        return (self.high - self.low) // self.step + 1


Domain = Choice | Uniform | LogUniform | IntRange

DOMAINS: dict[str, type[Choice] | type[Uniform] | type[LogUniform] | type[IntRange]] = {
    "choice": Choice,
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "int_range": IntRange,
}


def is_domain(value: Any) -> bool:
    """True if a value of a space file is written as a domain, well or badly."""
    return isinstance(value, Mapping) and any(name in value for name in DOMAINS)


def looks_like_domain(value: Any) -> bool:
    """True for a mapping that holds a list, as a domain with a misspelt name does."""
    return isinstance(value, Mapping) and any(isinstance(one, list) for one in value.values())


def parse_domain(value: Mapping[str, Any], place: str) -> Domain:
    """The domain a mapping of a space file stands for; `SpaceError` names the rule it breaks."""
    names = [name for name in DOMAINS if name in value]
    if len(names) != 1:
        raise SpaceError(f"{place}: {_one_domain(value, names)}")
    name = names[0]
    options = {key: one for key, one in value.items() if key != name}
    allowed = {"step"} if name == "int_range" else set()
    strange = [key for key in options if key not in allowed]
    if strange:
        known = ", ".join([name, *allowed])
        raise SpaceError(*(f"{place}: unknown key {key!r}; known keys: {known}" for key in strange))
    try:
        return DOMAINS[name].parse(value[name], **options)
    except ValueError as failure:
        raise SpaceError(f"{place}.{name}: {failure}") from None


def _one_domain(value: Mapping[str, Any], names: list[str]) -> str:
    if names:
        return f"must be one domain, but got {' and '.join(names)}"
    close = [match for key in value for match in nearest(str(key), DOMAINS, count=1)]
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"must be a value or one domain of {', '.join(DOMAINS)}, but got {dict(value)!r}{hint}"


def _check_order(low: float, high: float) -> None:
    if not low <= high:
        raise ValueError(f"low <= high must hold, but got {[low, high]}")


def _pair(value: Any) -> tuple[Any, Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"must be [low, high], but got {value!r}")
    return value[0], value[1]


def _reals(value: Any) -> tuple[float, float]:
    low, high = (_real(bound) for bound in _pair(value))
    if low is None or high is None:
        raise ValueError(f"must be [low, high], two finite numbers, but got {value!r}")
    return low, high


def _real(value: Any) -> float | None:
    """A bound as a float, None if it is not one; to YAML 1.1 the dotless 1e-5 is a string."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
