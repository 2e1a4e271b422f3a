"""How `config.json` tells of tensors: each format once, and neighbours that are alike once.

Told one by one, names and shapes would be a tenth of what is fetched of a small model in few bits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from autocomp.checkpoint.packing import StoredTensor

MOST_CHARACTERS = 2**22
"""Of the names and what they lie in: a short file could stand for more than memory holds."""


def fold(stored: Mapping[str, StoredTensor]) -> dict[str, Any]:
    """Tensors by module, in their order: each is its shape and the number of its format.

    Neighbours that hold the same share a key, joined by dots: no module's name has one.
    """
    formats: list[dict[str, Any]] = []
    modules: dict[str, Any] = {}
    for name, one in stored.items():
        how = one.model_dump(mode="json", exclude={"shape"}, exclude_none=True)
        if how not in formats:
            formats.append(how)
        *path, last = name.split(".")
        owner = modules
        for part in path:
            owner = owner.setdefault(part, {})
        owner[last] = [list(one.shape), formats.index(how)]
    told = {"formats": formats, "modules": _joined(modules)}
    assert list(unfold(told)) == list(stored), "a module's tensors must follow one another"
    return told


def _joined(at: Any) -> Any:
    if not isinstance(at, dict):
        return at
    inner = [(name, _joined(child)) for name, child in at.items()]
    alike = groupby(inner, key=lambda pair: json.dumps(pair[1]))  # dicts are equal in any order
    return {".".join(name for name, _ in pairs): json.loads(text) for text, pairs in alike}


def unfold(value: Any) -> Any:
    """What `fold` was given, for Pydantic to check; older files have it as it is.

    `ValueError` for what `fold` never gives.
    """
    if not isinstance(value, dict) or not isinstance(value.get("formats"), list):
        return value
    found: dict[str, Any] = {}
    left = [("", value.get("modules"))]
    characters = 0
    while left:
        path, at = left.pop()
        if not isinstance(at, dict):
            name = path.removesuffix(".")
            found[name] = _tensor(name, at, value["formats"])
            continue
        for names, child in reversed(at.items()):
            for name in reversed(names.split(".")):
                left.append((f"{path}{name}.", child))
                characters += len(path) + len(name) + 1
                if characters > MOST_CHARACTERS:
                    raise ValueError(f"must have names of {MOST_CHARACTERS} characters at most")
    return found


def _tensor(name: str, at: Any, formats: list[Any]) -> dict[str, Any]:
    match at:
        case [shape, int(index)] if 0 <= index < len(formats) and isinstance(formats[index], dict):
            return {**formats[index], "shape": shape}
    raise ValueError(f"{name!r} must be a shape and the number of a format, but is not")


StoredTensors = Annotated[
    dict[str, StoredTensor], BeforeValidator(unfold), PlainSerializer(fold, dict[str, Any])
]
