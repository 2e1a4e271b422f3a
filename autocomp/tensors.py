"""What a study keeps of a trial's tensors when its checkpoint is gone: widths, bits and bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from autocomp.decisions import Decision, read_json
from autocomp.errors import StudyError
from autocomp.files import write_json

TENSORS = "tensors.json"
"""The file's name in a trial's folder."""


class TensorRecord(Decision):
    """One tensor: `bits` of a value, and the bytes it takes in the packed weights, scales and all.

    The runtime computes with it in `computed_bits`; older records do not say.
    """

    name: str
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    bits: int = Field(ge=1)
    bytes: int = Field(ge=0)
    computed_bits: int | None = Field(default=None, ge=1)


class TensorRecords(Decision):
    """Every tensor of one model, in the model's order."""

    tensors: tuple[TensorRecord, ...]

    @classmethod
    def read(cls, path: Path) -> TensorRecords:
        """What a file holds; `StudyError` if it cannot be read or holds something else."""
        return read_json(cls, path, StudyError)

    def write(self, path: Path) -> None:
        """Write the file whole or not at all."""
        write_json(path, self.model_dump(mode="json"))
