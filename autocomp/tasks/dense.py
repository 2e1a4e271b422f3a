"""Where the dense model comes from: a checkpoint, or training in one or more stages."""

from __future__ import annotations

from typing import Any

from pydantic import GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from autocomp.decisions import Decision, reject_unknown_keys
from autocomp.policy import Retrain


class DenseSettings(Decision):
    """`{checkpoint: path}`, `{stages: [retrain, ...]}`, or the settings of a single stage."""

    checkpoint: str | None = None
    stages: tuple[Retrain, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _single_stage(cls, value: Any) -> Any:
        if isinstance(value, dict) and not {"checkpoint", "stages"} & set(value):
            settings = Retrain.model_fields.keys() - {"kind"}
            reject_unknown_keys(value, {"checkpoint", "stages", "kind", *settings})
            return {"stages": [value]}
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Also a single stage's settings, which `_single_stage` takes."""
        return {"anyOf": [handler(core_schema), handler(Retrain.__pydantic_core_schema__)]}

    @model_validator(mode="after")
    def _check_source(self) -> DenseSettings:
        if (self.checkpoint is None) == (not self.stages):
            raise ValueError("must have either a checkpoint or stages of training")
        return self
