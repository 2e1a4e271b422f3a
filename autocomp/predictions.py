"""What a trial's model said of each example, kept so that two trials can be compared in pairs."""

from __future__ import annotations

from pathlib import Path

from pydantic import FiniteFloat, JsonValue, model_validator

from autocomp.decisions import Decision, read_json
from autocomp.errors import StudyError
from autocomp.files import write_json

PREDICTIONS = "predictions.json"
"""The file's name in a trial's folder."""
DECIMALS = 6
"""Of a score in the file."""


class Predictions(Decision):
    """One prediction an example of a split, and every example's scores, all in the same order.

    `names` are what the data set calls its examples (file names). A prediction is whatever the task
    predicts, as JSON has it: a caption, a class. `scores` holds the metrics that are means over the
    examples; others, such as BLEU, have no value for one example.
    """

    split: str
    names: tuple[str, ...]
    predictions: tuple[JsonValue, ...]
    scores: dict[str, tuple[FiniteFloat, ...]]

    @model_validator(mode="after")
    def _one_of_each(self) -> Predictions:
        lists = {"predictions": self.predictions, **self.scores}
        for key, values in lists.items():
            if len(values) != len(self.names):
                rule = f"must hold one value for each of the {len(self.names)} names"
                raise ValueError(f"{key}: {rule}, but got {len(values)}")
        return self

    def write(self, path: Path) -> None:
        """Write the file whole or not at all."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """What a file holds; `StudyError` if it cannot be read or holds something else."""
        return read_json(cls, path, StudyError)
