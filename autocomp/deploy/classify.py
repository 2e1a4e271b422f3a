"""Classifies photos with the model beside this file: `python classify.py photo.jpg ...`.

Needs Python 3.10, onnxruntime, numpy and Pillow, and in its folder model.onnx and
preprocessing.json. From Python:

    from classify import Classifier
    Classifier().classify("photo.jpg")

autocomp measures models with what stands here: what a model says here is what it said there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from autocomp.deploy.photos import (
    Photo,
    Unusable,
    main,
    open_session,
    read_json,
    read_photo,
    runner,
)

PREPROCESSING = "preprocessing.json"
MOST = 5
"""How many classes a prediction names."""


class Classifier:
    """The classifier in `folder`, on as many threads as it was measured on.

    `Unusable` if one of its files is missing or damaged.
    """

    def __init__(self, folder: str | os.PathLike[str] = Path(__file__).parent) -> None:
        folder = Path(folder)
        self.classes = read_classes(folder)
        settings = read_json(folder / PREPROCESSING)
        try:
            self.image_size: int = settings["image_size"]
            threads: int = settings["threads"]
        except KeyError as lack:
            raise Unusable(f"{folder}: must be as autocomp wrote it, but lacks {lack}") from None
        self.run = runner({"model": open_session(folder / "model.onnx", threads)})

    def classify(self, photo: Photo) -> str:
        """The likeliest class of a photo, a file or its bytes; `Unusable` if it is no image."""
        return next(iter(self.probabilities(photo)))

    def probabilities(self, photo: Photo) -> dict[str, float]:
        """The five likeliest classes, the likeliest first, each with its probability."""
        images = read_photo(photo, self.image_size)
        return named(self.run("model", images=images)["logits"][0], self.classes)

    def answer(self, photo: Photo) -> tuple[str, dict[str, Any]]:
        """The likeliest class as a line, and five of them as what `--json` prints."""
        return told(self.probabilities(photo))


def read_classes(folder: Path) -> tuple[str, ...]:
    """The names of the classes, in the order of the logits."""
    settings = read_json(folder / PREPROCESSING)
    try:
        return tuple(str(name) for name in settings["classes"])
    except (KeyError, TypeError) as lack:
        raise Unusable(f"{folder}: must be as autocomp wrote it, but lacks {lack}") from None


def likeliest(logits: np.ndarray) -> np.ndarray:
    """The numbers of the likeliest classes, (B, 5) or fewer, of logits (B, K)."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :MOST]


def named(logits: np.ndarray, classes: tuple[str, ...]) -> dict[str, float]:
    """The likeliest classes, the likeliest first, with their probabilities; of logits (K,)."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    shares = powers / powers.sum()
    return {classes[index]: float(shares[index]) for index in likeliest(logits[None])[0]}


def told(probabilities: dict[str, float]) -> tuple[str, dict[str, Any]]:
    """The likeliest class with its probability as a line, and all of them for JSON."""
    rounded = {name: round(share, 4) for name, share in probabilities.items()}
    best = next(iter(rounded))
    return f"{best} ({rounded[best]:.0%})", {"class": best, "probabilities": rounded}


if __name__ == "__main__":
    sys.exit(main("Classify", lambda: Classifier().answer))
