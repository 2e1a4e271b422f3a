"""The keys of every step: what each takes, and what it is when left out."""

from __future__ import annotations

from typing import Any

from autocomp.policy import STEPS

BOUNDS = (
    ("minimum", ">= {}"),
    ("exclusiveMinimum", "> {}"),
    ("maximum", "<= {}"),
    ("exclusiveMaximum", "< {}"),
)
KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "yes or no"}


def step_keys() -> dict[str, str]:
    """`step.key` -> its values and its default, from the steps' own JSON Schema."""
    return {
        f"{kind}.{name}": f"{_values(one)}; {_default(one)}"
        for kind, step in STEPS.items()
        for name, one in step.model_json_schema()["properties"].items()
        if name != "kind"
    }


def _values(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return ", or ".join(_values(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema["type"] == "array":
        return "a list of patterns"
    if schema["type"] == "object":
        return "a mapping from modules to such values"
    bounds = [text.format(f"{schema[key]:g}") for key, text in BOUNDS if key in schema]
    return " ".join([KINDS[schema["type"]], " and ".join(bounds)]).strip()


def _default(schema: dict[str, Any]) -> str:
    if "default" not in schema:
        return "must be given"
    default = schema["default"]
    if isinstance(default, list | tuple):
        default = ", ".join(default) or "none"
    return f"default {default}"
