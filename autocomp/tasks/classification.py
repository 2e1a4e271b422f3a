"""Classification: images in, the names of the likeliest classes out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from autocomp.data.labels import LabelledData, load_labelled
from autocomp.data.split import ImageSplit, SplitName
from autocomp.decisions import Decision
from autocomp.deploy import classify
from autocomp.deploy.photos import Unusable
from autocomp.errors import CheckpointError, DataError, UserError
from autocomp.files import write_json
from autocomp.models.classifiers import (
    ClassifierSettings,
    Normalize,
    PixelsToLogits,
    build_classifier,
    normalization_of,
)
from autocomp.models.reshape import tensors
from autocomp.tasks.augmentation import Augmentation, augmented
from autocomp.tasks.base import Batch, Graph, Outputs, Run
from autocomp.tasks.dense import DenseSettings
from autocomp.tasks.images import ImageTask
from autocomp.tasks.stages import watched_stages

PREPROCESSING = "preprocessing.json"


class ClassificationSettings(Decision):
    """The user's problem of classifying images; the classes are those of the training images."""

    kind: Literal["classification"] = "classification"
    data: LabelledData
    model: ClassifierSettings
    augmentation: Augmentation = Augmentation()
    dense: DenseSettings
    seed: int = Field(default=0, ge=0)


class Classification(ImageTask):
    """A `Task` whose predictions are the names of the likeliest classes, five at most.

    The model is the bare net, so that its layers bear the names its weights were published with. It
    has one attribute of its own, `image_size`.
    """

    def __init__(
        self,
        settings: ClassificationSettings,
        classes: tuple[str, ...] | None = None,
        unresized: Classification | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__(image_size or settings.data.image_size, unresized)
        self.settings = settings
        if classes is not None:
            self.classes = classes

    @classmethod
    def restore(cls, settings: ClassificationSettings, directory: Path) -> Classification:
        """The task of a checkpoint: its classes, and no pretrained weights."""
        model = settings.model.model_copy(update={"weights": "none"})
        return cls(settings.model_copy(update={"model": model}), _classes_in(directory))

    def load(self, name: SplitName) -> ImageSplit:
        return load_labelled(self.settings.data, name)

    def at(self, image_size: int) -> Classification:
        return Classification(self.settings, self.classes, self, image_size)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes of the training images in alphabetical order, which is that of the logits."""
        return tuple(sorted({name for (name,) in self.split("train").references}))

    @cached_property
    def _normalize(self) -> Normalize:
        return Normalize(normalization_of(self.settings.model))

    def build(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            model = build_classifier(self.settings.model, len(self.classes))
        self.resize_(model)
        return model

    def resize_(self, model: nn.Module) -> None:
        is_training = model.training
        try:
            with torch.no_grad():
                found = model.eval()(torch.zeros(1, 3, self.image_size, self.image_size))
        except (RuntimeError, AssertionError) as failure:
            raise UserError(
                f"image_size: must be one the model takes, but {self.image_size} pixels give: "
                f"{' '.join(str(failure).split())}"
            ) from None
        wanted = (1, len(self.classes))
        if not isinstance(found, Tensor) or found.shape != wanted:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(
                f"task.model.name: must give logits {wanted} of an image, but gives {shape}"
            )
        model.train(is_training)
        model.image_size = self.image_size  # type: ignore[assignment]  # an int on a module

    def fingerprint(self) -> str:
        split, settings = self.split("train"), self.settings
        digest = hashlib.sha256(split.pixels_id.encode())
        digest.update(repr((split.references, normalization_of(settings.model))).encode())
        digest.update(settings.augmentation.model_dump_json().encode())
        digest.update(settings.model.name.encode())
        for tensor in tensors(self.build()).values():
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def training_batches(
        self, models: Sequence[nn.Module], batch_size: int, trainable: Collection[str], seed: int
    ) -> Iterator[tuple[Batch, ...]]:
        tasks = [self.resized(_image_size(model)) for model in models]
        stacks = [task.split("train").images for task in tasks]
        labels = torch.from_numpy(self._labels("train"))
        generator = np.random.default_rng(seed)
        while True:
            order = generator.permutation(len(labels))
            # a small split still fills a batch; otherwise the incomplete last batch is left out
            for start in range(0, max(1, len(order) - batch_size + 1), batch_size):
                rows = np.sort(order[start : start + batch_size])
                draws = generator.random((len(rows), 3))
                yield tuple(
                    {
                        "images": augmented(stack[rows], draws, self.settings.augmentation),
                        "labels": labels[rows],
                    }
                    for stack in stacks
                )

    def _labels(self, split: SplitName) -> NDArray[np.int64]:
        """The number of each image's class, (N,)."""
        number = {name: index for index, name in enumerate(self.classes)}
        references = self.split(split).references
        unknown = next((name for (name,) in references if name not in number), None)
        if unknown is not None:
            raise DataError(f"{split}: must have the classes of train alone, but has {unknown!r}")
        return np.array([number[name] for (name,) in references], dtype=np.int64)

    def forward(self, model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Outputs:
        with watched_stages(model) as hidden:
            logits = self._logits(model, batch["images"])
        loss = functional.cross_entropy(
            logits.float(), batch["labels"], label_smoothing=label_smoothing
        )
        return Outputs(loss, logits, hidden)

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        logits = model(self._normalize.to(images.device)(images))
        if not isinstance(logits, Tensor):
            raise UserError(
                "task.model.name: must give logits alone while it is trained, "
                f"but {self.settings.model.name!r} gives {type(logits).__name__}"
            )
        return logits

    def graphs(self, model: nn.Module) -> dict[str, Graph]:
        side = self.image_size
        images = torch.zeros(1, side, side, 3, dtype=torch.uint8)
        module = PixelsToLogits(self._normalize.cpu(), model)
        axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
        return {"model": Graph(module, {"images": images}, ("logits",), axes)}

    def features(self, model: nn.Module, batch: Batch) -> Tensor:
        """The logits as those of a single place: no pruning changes their width (1312.6184)."""
        return self._logits(model, batch["images"]).unsqueeze(1)

    def channel_graph(self, model: nn.Module) -> tuple[nn.Module, tuple[Tensor, ...]]:
        generator = torch.Generator().manual_seed(0)
        return model, (torch.randn(2, 3, self.image_size, self.image_size, generator=generator),)

    def predict(self, run: Run, inputs: np.ndarray, steps: int | None = None) -> list[list[str]]:
        return [
            [self.classes[index] for index in row]
            for row in classify.likeliest(run("model", images=inputs)["logits"])
        ]

    def said(self, prediction: Any) -> str:
        return str(prediction[0])

    def metrics(self, predictions: Sequence[Sequence[str]], split: SplitName) -> dict[str, float]:
        scores = self.per_example(predictions, split)
        (_, most), *_ = Counter(prediction[0] for prediction in predictions).most_common(1)
        means = {name: float(each.mean()) for name, each in scores.items()}
        return {**means, "top_class_share": most / len(predictions)}

    def per_example(
        self, predictions: Sequence[Sequence[str]], split: SplitName
    ) -> dict[str, NDArray[np.float64]]:
        references = self.split(split).references[: len(predictions)]
        pairs = [(list(one), name) for one, (name,) in zip(predictions, references, strict=True)]
        return {
            f"top_{count}": np.array([name in one[:count] for one, name in pairs], dtype=np.float64)
            for count in self._counts
        }

    @property
    def _counts(self) -> tuple[int, ...]:
        """Of how many guesses one must be right; one of five is, where there are but five."""
        return (1, classify.MOST) if len(self.classes) > classify.MOST else (1,)

    def metric_names(self) -> tuple[str, ...]:
        return (*(f"top_{count}" for count in self._counts), "top_class_share")

    def check_assets(self, directory: Path) -> None:
        path = directory / PREPROCESSING
        if path.exists() and _classes_in(directory) != self.classes:
            raise CheckpointError(
                f"{path}: must have the classes of the training images, in their order, but has "
                "others; what the weights learnt of a class would go to another"
            )

    def write_assets(self, directory: Path, threads: int) -> list[str]:
        preprocessing = {
            "image_size": self.image_size,
            "resize": "bicubic, whole image to a square",
            "colour": "RGB, uint8, (batch, height, width, 3); the model normalises",
            "classes": self.classes,
            "threads": threads,
        }
        write_json(directory / PREPROCESSING, preprocessing)
        return [PREPROCESSING]


def _classes_in(directory: Path) -> tuple[str, ...]:
    try:
        return classify.read_classes(directory)
    except Unusable as failure:
        raise CheckpointError(str(failure)) from None


def _image_size(model: nn.Module) -> int:
    """What the task's `build` or `resize_` left in a model."""
    size = model.image_size
    assert isinstance(size, int)
    return size
