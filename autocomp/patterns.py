"""Which module names a pattern means, and which unit of the model a name belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Literal

Per = Literal["layer", "block", "stage", "pattern"]


def matches(name: str, pattern: str) -> bool:
    """True if the glob `pattern` means `name`: `*` crosses dots, a parent means all below it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def matching(names: Iterable[str], layers: Sequence[str], exclude: Sequence[str] = ()) -> list[str]:
    """The names that some pattern of `layers` means and none of `exclude` does, in given order."""
    return [
        name
        for name in names
        if any(matches(name, pattern) for pattern in layers)
        and not any(matches(name, pattern) for pattern in exclude)
    ]


def unit_of(name: str, per: Per) -> str:
    """The name of the layer, block or stage that module `name` belongs to.

    A block ends with the first run of numbers in the name (`layer1.0`, `blocks.2.1`, `layers.0`);
    a stage is what holds the block (`layer1`, `blocks.2`, `layers`), or the block itself where
    only the model holds it. A name without a number is a unit of its own.
    """
    parts = name.split(".")
    digits = [index for index, part in enumerate(parts) if part.isdigit()]
    if per == "layer" or not digits:
        return name
    end = digits[0]
    while end + 1 < len(parts) and parts[end + 1].isdigit():
        end += 1
    return ".".join(parts[:end] if per == "stage" and end > 0 else parts[: end + 1])
