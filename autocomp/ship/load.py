"""Opens a checkpoint for use from Python: pictures in, captions or classes out."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import nn

from autocomp.checkpoint.folder import Checkpoint, open_checkpoint
from autocomp.deploy.classify import named, told
from autocomp.errors import DataError
from autocomp.policy import Policy
from autocomp.tasks.classification import Classification
from autocomp.trust import trusting

Example = bytes | str | os.PathLike[str] | Image.Image
"""The bytes of a file, its path, or an image that is open already."""

BATCH = 64
_STORED_BY_PNG = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
_NEAREST_STORED = {"I": "I;16", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"}


class Model:
    """A compressed model that predicts in its target's runtime, as it was measured."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.task = checkpoint.task

    @property
    def metrics(self) -> dict[str, float]:
        """What the study measured of this checkpoint, by name."""
        return self.checkpoint.metrics

    @property
    def policy(self) -> Policy:
        """What was done to the dense model."""
        return self.checkpoint.policy

    @cached_property
    def model(self) -> nn.Module:
        """The same model in PyTorch, in evaluation mode, rebuilt from the packed weights."""
        return self.checkpoint.compressed().module

    def predict(self, example: Example) -> Any:
        """The prediction for one example; `DataError` if it cannot be read."""
        return self.predict_all([example])[0]

    def predict_all(self, examples: Sequence[Example]) -> list[Any]:
        """One prediction an example, computed in batches."""
        predictions: list[Any] = []
        for start in range(0, len(examples), BATCH):
            batch = [self._read(one) for one in examples[start : start + BATCH]]
            predictions += self.task.predict(self.checkpoint.run, np.concatenate(batch))
        return predictions

    def _read(self, example: Example) -> np.ndarray:
        place = "" if isinstance(example, bytes | Image.Image) else f"{os.fspath(example)}: "
        try:
            return self.task.read(_raw(example))
        except DataError as failure:
            raise DataError(f"{place}{failure}") from None


class Captioner(Model):
    """A compressed captioner."""

    def caption(self, image: Example) -> str:
        """The caption of one picture; `DataError` if it cannot be read."""
        return str(self.predict(image))

    def answer(self, image: Example) -> tuple[str, dict[str, Any]]:
        """The caption as a line, and for JSON."""
        said = self.caption(image)
        return said, {"caption": said}

    def captions(self, images: Sequence[Example]) -> list[str]:
        """One caption a picture, computed in batches."""
        return [str(one) for one in self.predict_all(images)]


class Classifier(Model):
    """A compressed classifier."""

    def classify(self, image: Example) -> str:
        """The name of the likeliest class of one picture; `DataError` if it cannot be read."""
        return next(iter(self.probabilities(image)))

    def probabilities(self, image: Example) -> dict[str, float]:
        """The five likeliest classes of one picture, the likeliest first."""
        assert isinstance(self.task, Classification)
        logits = self.checkpoint.run("model", images=self._read(image))["logits"]
        return named(logits[0], self.task.classes)

    def answer(self, image: Example) -> tuple[str, dict[str, Any]]:
        """The likeliest class as a line, and five of them for JSON."""
        return told(self.probabilities(image))


MODELS: dict[str, type[Model]] = {"captioning": Captioner, "classification": Classifier}
"""What `load` makes of a checkpoint, by its kind of task."""


def load(directory: Path | str, *, trust: bool = False) -> Any:
    """The model in a checkpoint's folder: a `Captioner`, a `Classifier`, a `Model` of other tasks.

    `CheckpointError` if the checkpoint is incomplete, truncated or edited. `trust` lets a task of
    the user's own (`kind: python`), of which it holds the name, run its code.
    """
    checkpoint = open_checkpoint(directory)
    with trusting(trust):
        return MODELS.get(str(checkpoint.config.task.get("kind")), Model)(checkpoint)


def _raw(example: Example) -> bytes:
    if isinstance(example, bytes):
        return example
    if isinstance(example, Image.Image):
        return _png(example)
    try:
        return Path(example).read_bytes()
    except OSError as failure:
        raise DataError(f"must be readable, but {failure.strerror or failure}") from None


def _png(image: Image.Image) -> bytes:
    """An open image as the file a task reads; upright, for Pillow's PNG leaves EXIF out."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode not in _STORED_BY_PNG:
        upright = upright.convert(_NEAREST_STORED.get(upright.mode, "RGB"))
    buffer = io.BytesIO()
    upright.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
