"""Where the dense model comes from: a checkpoint, or training in one or more stages."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from autocomp.decisions import Decision
from autocomp.policy import Retrain


class DenseSettings(Decision):
    """`{checkpoint: path}`, `{stages: [retrain, ...]}`, or the settings of a single stage."""

    checkpoint: str | None = None
    stages: tuple[Retrain, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _single_stage(cls, value: Any) -> Any:
        if isinstance(value, dict) and not {"checkpoint", "stages"} & set(value):
            return {"stages": [value]}
        return value

    @model_validator(mode="after")
    def _check_source(self) -> DenseSettings:
        if (self.checkpoint is None) == (not self.stages):
            raise ValueError("must have either a checkpoint or stages of training")
        return self
