"""The JSON Schema of a space file, from which an editor completes and checks one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from autocomp.patterns import Per
from autocomp.policy import STEPS
from autocomp.space.metrics import METRICS, Direction
from autocomp.space.parsing import FIXED_FIELDS
from autocomp.space.space import OWN, SearchSettings
from autocomp.space.steps import NO_STEP, fields_by_unit

Schema = dict[str, Any]

_NUMBER: Schema = {"type": "number"}
_BOUND: Schema = {
    "description": "A number, or a multiple of the dense model's value such as 0.5*dense.",
    "anyOf": [_NUMBER, {"type": "string", "pattern": r"^\s*[^\s*]+\s*\*\s*dense\s*$"}],
}


def json_schema(
    task_schema: Mapping[str, Any] | None = None,
    target_schema: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Direction | None] = METRICS,
) -> Schema:
    """JSON Schema (2020-12) of a space file.

    `task_schema` and `target_schema` describe those sections; left out, anything with a kind
    passes. Their `$defs` are moved to the root, where their references look for them.
    """
    task, target = _section(task_schema), _section(target_schema)
    definitions = _merged(task.pop("$defs", {}), target.pop("$defs", {}), _step_definitions())
    properties = {
        "task": task,
        "target": target,
        "objectives": _objectives(metrics),
        "policy": _policy(),
        "search": SearchSettings.model_json_schema(),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "autocomp search space",
        **_mapping(properties, required=["task", "target", "objectives", "policy"]),
        # the metrics of a user's own task are known to it alone
        "if": {"properties": {"task": {"properties": {"kind": {"const": OWN}}}}},
        "else": {"properties": {"objectives": {"propertyNames": {"enum": list(metrics)}}}},
        "$defs": definitions,
    }


def _section(given: Mapping[str, Any] | None) -> Schema:
    if given is not None:
        return dict(given)
    return {"type": "object", "properties": {"kind": {"type": "string"}}, "required": ["kind"]}


def _merged(*parts: Mapping[str, Any]) -> Schema:
    merged: Schema = {}
    for part in parts:
        for name, definition in part.items():
            assert merged.get(name, definition) == definition, f"two definitions of {name}"
            merged[name] = definition
    return merged


def _mapping(properties: Schema, required: list[str]) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": properties,
    }


def _objectives(metrics: Mapping[str, Direction | None]) -> Schema:
    properties = {name: _objective(better) for name, better in metrics.items()}
    others = {"additionalProperties": _objective(None)}
    return {"minProperties": 1, **_mapping(properties, required=[]), **others}


def _objective(better: Direction | None) -> Schema:
    direction = {"enum": list(get_args(Direction)) if better is None else [better]}
    fields = {"direction": direction, "at_most": _BOUND, "at_least": _BOUND}
    return {"anyOf": [direction, {"minProperties": 1, **_mapping(fields, required=[])}]}


def _policy() -> Schema:
    step: Schema = {"anyOf": [{"$ref": f"#/$defs/{kind}"} for kind in STEPS]}
    option = {"anyOf": [*step["anyOf"], {"enum": [None, NO_STEP]}]}
    branch = _mapping({"choice": _list(option)}, required=["choice"])
    return _mapping({"steps": _list({"anyOf": [*step["anyOf"], branch]})}, required=["steps"])


def _step_definitions() -> Schema:
    return {kind: _step(kind) for kind in STEPS}


def _step(kind: str) -> Schema:
    """The schema of a kind of step, every leaf of which may also be a domain."""
    schema = STEPS[kind].model_json_schema()
    by_unit = fields_by_unit(kind)
    properties = {
        field: one if field in ("kind", *FIXED_FIELDS) else _searchable(one)
        for field, one in schema["properties"].items()
    }
    if by_unit:
        properties["per"] = {
            "description": f"One value of {' and '.join(by_unit)} a layer, block, stage or step.",
            "enum": list(get_args(Per)),
        }
    return schema | {"properties": properties, "required": ["kind", *schema.get("required", [])]}


def _searchable(schema: Mapping[str, Any]) -> Schema:
    """`schema`, or a domain of what it accepts; mappings by module are searchable by entry."""
    outer = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    inner = {key: one for key, one in schema.items() if key not in outer}
    options = inner.get("anyOf", [inner])
    leaves = [one for one in options if "additionalProperties" not in one]
    mappings = [one for one in options if "additionalProperties" in one]
    entries = [
        one | {"additionalProperties": _searchable(one["additionalProperties"])} for one in mappings
    ]
    return outer | {"anyOf": [*leaves, *_domains(leaves), *entries]}


def _domains(leaves: list[Schema]) -> list[Schema]:
    """The domains that values of the schemas `leaves` may be drawn from."""
    types = {name for leaf in leaves for name in _types(leaf)}
    domains = [_mapping({"choice": _list({"anyOf": leaves})}, required=["choice"])]
    if "number" in types:
        for name in ("uniform", "log_uniform"):
            domains.append(_mapping({name: _bounds("number")}, required=[name]))
    if types & {"number", "integer"}:
        fields = {"int_range": _bounds("integer"), "step": {"type": "integer", "minimum": 1}}
        domains.append(_mapping(fields, required=["int_range"]))
    return domains


def _types(leaf: Schema) -> set[str]:
    whole = all(isinstance(one, int) for one in leaf.get("enum", [""]))
    return {"integer"} if whole else {leaf.get("type", "")}


def _list(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _bounds(kind: str) -> Schema:
    return {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": kind}}
