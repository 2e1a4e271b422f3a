from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from space_strategies import DESIGN, document, documents

from autocomp.policy import STEPS
from autocomp.space import json_schema

jsonschema = pytest.importorskip("jsonschema")


VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def is_valid(value: Any) -> bool:
    return bool(VALIDATOR.is_valid(value))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@given(documents)
def test_every_space_is_valid(value: dict[str, Any]) -> None:
    assert is_valid(value)


QUANTIZE = {"kind": "quantize", "layers": "**", "bits": 8}
GOOD = {
    "design": yaml.safe_load(DESIGN.replace("1e-5", "1.0e-5")),
    "by-module": document(QUANTIZE | {"bits": {"decoder": {"choice": [4, 8]}, "head": 32}}),
    "int-range": document({"kind": "retrain", "steps": {"int_range": [1, 9], "step": 2}}),
    "own metric": document(QUANTIZE, task={"kind": "python"}, objectives={"mae": "minimize"}),
    "none": document({"choice": [QUANTIZE, "none"]}),
}
BAD = {
    "unknown-section": document(QUANTIZE, polcy={}),
    "no-kind": document({"layers": "**", "bits": 8}),
    "unknown-kind": document(QUANTIZE | {"kind": "quantise"}),
    "unknown-key": document(QUANTIZE | {"bist": 4}),
    "value": document(QUANTIZE | {"bits": 7}),
    "choice": document(QUANTIZE | {"bits": {"choice": [7]}}),
    "empty-choice": document(QUANTIZE | {"bits": {"choice": []}}),
    "by-module": document(QUANTIZE | {"bits": {"decoder": 7}}),
    "uniform-of-a-name": document(
        {"kind": "drop_layers", "layers": "a", "keep": 1, "select": {"uniform": [0, 1]}}
    ),
    "domain": document({"kind": "retrain", "steps": {"unifrom": [1, 9]}}),
    "one-bound": document({"kind": "retrain", "steps": {"int_range": [1]}}),
    "domain-of-layers": document(QUANTIZE | {"layers": {"choice": ["a"]}}),
    "per": document(QUANTIZE | {"bits": {"choice": [4]}, "per": "blocks"}),
    "per-of-no-field": document({"kind": "retrain", "steps": 1, "per": "block"}),
    "branch": document({"choice": [QUANTIZE | {"bits": 7}]}),
    "metric": document(QUANTIZE, objectives={"cidr": "maximize"}),
    "own metric": document(
        QUANTIZE, task={"kind": "python"}, objectives={"mae": {"at_least": "half"}}
    ),
    "direction": document(QUANTIZE, objectives={"cider": "minimize"}),
    "bound": document(QUANTIZE, objectives={"cider": {"at_least": "half"}}),
    "search": document(QUANTIZE, search={"trials": 0}),
}


@pytest.mark.parametrize("value", GOOD.values(), ids=GOOD.keys())
def test_good_spaces_are_valid(value: dict[str, Any]) -> None:
    assert is_valid(value)


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
def test_bad_spaces_are_not(value: dict[str, Any]) -> None:
    assert not is_valid(value)


def test_the_task_and_the_target_bring_their_schemas() -> None:
    task = {
        "type": "object",
        "properties": {"kind": {"const": "captioning"}, "data": {"$ref": "#/$defs/Data"}},
        "$defs": {"Data": {"type": "object", "required": ["root"]}},
    }
    schema = json_schema(task, {"type": "object"})
    assert set(schema["$defs"]) == {"Data", *STEPS}
    assert "$defs" in task
    value = document(QUANTIZE, task={"kind": "captioning", "data": {"root": "x"}})
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(value)
    assert not validator.is_valid(value | {"task": {"data": {}}})


@pytest.mark.parametrize("kind", STEPS)
def test_every_kind_of_step_is_described(kind: str) -> None:
    assert (
        json_schema()["$defs"][kind]["description"]
        == STEPS[kind].model_json_schema()["description"]
    )
