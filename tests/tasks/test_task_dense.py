"""Where a dense model comes from: one source, however it is written."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from autocomp.tasks.dense import DenseSettings

STAGE = {"kind": "retrain", "steps": 5}


@pytest.mark.parametrize(
    ("section", "steps"),
    [
        ({"steps": 5}, [5]),
        ({"stages": [STAGE, {**STAGE, "steps": 7}]}, [5, 7]),
        ({"checkpoint": "model.safetensors"}, []),
    ],
    ids=["one stage", "stages", "checkpoint"],
)
def test_sources(section: dict[str, Any], steps: list[int]) -> None:
    settings = DenseSettings.model_validate(section)
    assert [stage.steps for stage in settings.stages] == steps
    assert DenseSettings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    "section",
    [{"stages": []}, {"checkpoint": "a", "stages": [STAGE]}, {"checkpoint": None}],
    ids=["none", "both", "no checkpoint"],
)
def test_there_must_be_one_source(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must have either a checkpoint or stages"):
        DenseSettings.model_validate(section)
