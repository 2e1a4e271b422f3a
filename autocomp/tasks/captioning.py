"""Captioning: images in, sentences out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from autocomp.data.captions import DataSettings, ImageSplit, SplitName, load_split
from autocomp.data.tokenizer import Tokenizer
from autocomp.decisions import Decision
from autocomp.deploy.caption import BOS, EOS, PAD
from autocomp.errors import CheckpointError
from autocomp.evaluate.captions import SCORES, CaptionScorer
from autocomp.evaluate.meteor import java_available
from autocomp.files import write_json
from autocomp.models.captioner import Captioner, GridFeatures
from autocomp.models.captioners import CaptionerSettings, build_captioner
from autocomp.models.cnn_transformer import CnnTransformerSettings
from autocomp.models.reshape import tensors
from autocomp.tasks.base import Batch, Graph, Outputs, Run
from autocomp.tasks.captioner_graphs import captioner_graphs
from autocomp.tasks.decoding import Generation, generate
from autocomp.tasks.dense import DenseSettings
from autocomp.tasks.features import backbone_features
from autocomp.tasks.images import ImageTask

BACKBONE = "encoder.backbone."
TOKENIZER = "tokenizer.json"


class CaptioningSettings(Decision):
    """The user's captioning problem. A word counts if training captions have it `min_count` times.

    Each image of a training batch comes with `captions_per_image` of its captions, so one pass of
    the encoder serves them all. `meteor` computes METEOR in a Java process; None: if Java is there.
    """

    kind: Literal["captioning"] = "captioning"
    data: DataSettings
    model: CaptionerSettings = CnnTransformerSettings()
    generation: Generation = Generation()
    dense: DenseSettings
    min_count: int = Field(default=5, ge=1)
    captions_per_image: int = Field(default=5, ge=1)
    meteor: bool | None = None
    seed: int = 0


class Captioning(ImageTask):
    """A `Task` whose predictions are captions."""

    def __init__(
        self,
        settings: CaptioningSettings,
        tokenizer: Tokenizer | None = None,
        unresized: Captioning | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__(image_size or settings.data.image_size, unresized)
        self.settings = settings
        # references are the same whatever the size of their images
        self._scorers: dict[tuple[str, int], CaptionScorer] = (
            {} if unresized is None else unresized._scorers
        )
        if tokenizer is not None:
            self.tokenizer = tokenizer

    @classmethod
    def restore(cls, settings: CaptioningSettings, directory: Path) -> Captioning:
        """The task of a checkpoint: its tokenizer, and no pretrained weights."""
        model = settings.model.model_copy(update={"weights": "none"})
        tokenizer = Tokenizer.load(directory / TOKENIZER)
        return cls(settings.model_copy(update={"model": model}), tokenizer)

    def load(self, name: SplitName) -> ImageSplit:
        return load_split(self.settings.data, name)

    def at(self, image_size: int) -> Captioning:
        return Captioning(self.settings, self.tokenizer, self, image_size)

    def resize_(self, model: nn.Module) -> None:
        _captioner(model).encoder.resize_(self.image_size)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        captions = [c for references in self.split("train").references for c in references]
        return Tokenizer.train(captions, self.settings.min_count)

    def build(self) -> Captioner:
        settings = self.settings
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            model = build_captioner(
                settings.model,
                vocabulary=len(self.tokenizer),
                image_size=settings.data.image_size,
                max_length=settings.generation.max_length + 1,
            )
        if self._unresized is not None:
            self.resize_(model)
        return model

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.split("train").pixels_id.encode())
        for tokens in self._tokens:
            digest.update(tokens.tobytes())
        for tensor in tensors(self.build()).values():
            digest.update(tensor.contiguous().numpy().tobytes())
        digest.update(str(self.settings.captions_per_image).encode())
        digest.update(self.settings.model.model_dump_json(exclude={"weights"}).encode())
        return digest.hexdigest()

    def training_batches(
        self, models: Sequence[nn.Module], batch_size: int, trainable: Collection[str], seed: int
    ) -> Iterator[tuple[Batch, ...]]:
        images, tokens = self.split("train").images, self._tokens
        trains_backbone = any(name.startswith(BACKBONE) for name in trainable)
        features = [
            None
            if index == 0 and trains_backbone
            else self._sized_for(model)._features(model, keep=index > 0)
            for index, model in enumerate(models)
        ]
        generator = np.random.default_rng(seed)
        while True:
            order = generator.permutation(len(images))
            # a small split still fills a batch; otherwise the incomplete last batch is left out
            for start in range(0, max(1, len(order) - batch_size + 1), batch_size):
                rows = np.sort(order[start : start + batch_size])
                captions = self._choose(tokens, rows, generator)
                yield tuple(
                    {"images": torch.from_numpy(np.array(images[rows])), "tokens": captions}
                    if own is None
                    else {"features": own[rows], "tokens": captions}
                    for own in features
                )

    def _sized_for(self, model: nn.Module) -> Captioning:
        """This task with the images that `model` takes: a teacher's may be larger."""
        return self.resized(_captioner(model).encoder.image_size)

    def _features(self, model: nn.Module, keep: bool) -> Tensor:
        train = self.split("train")
        return backbone_features(_captioner(model), train.images, train.pixels_id, keep)

    @cached_property
    def _tokens(self) -> list[np.ndarray]:
        """For each training image its captions as ids between bos and eos, (captions, T)."""
        if self._unresized is not None:
            tokens: list[np.ndarray] = self._unresized._tokens
            return tokens
        longest = self.settings.generation.max_length
        rows = []
        for references in self.split("train").references:
            ids = [[BOS, *self.tokenizer.encode(c)[: longest - 1], EOS] for c in references]
            padded = np.full((len(ids), longest + 1), PAD, dtype=np.int64)
            for row, caption in zip(padded, ids, strict=True):
                row[: len(caption)] = caption
            rows.append(padded)
        return rows

    def _choose(
        self, tokens: list[np.ndarray], rows: np.ndarray, generator: np.random.Generator
    ) -> Tensor:
        """`captions_per_image` captions of each image, (B * K, T), cut to the longest of them."""
        count = self.settings.captions_per_image
        parts = []
        for row in rows:
            own = tokens[row]
            picks = generator.permutation(len(own))
            parts.append(own[np.resize(picks, count)])
        captions = np.concatenate(parts)
        return torch.from_numpy(captions[:, : int((captions != PAD).sum(axis=1).max())])

    def forward(self, model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Outputs:
        tokens = batch["tokens"]
        inputs, targets = tokens[:, :-1], tokens[:, 1:].reshape(-1)
        logits, hidden = model(inputs, batch.get("images"), batch.get("features"))
        real = targets != PAD
        # what stands at a padded position says nothing, and varies with the longest caption
        hidden = {
            name: state.flatten(0, 1)[real] if name.startswith("decoder.") else state
            for name, state in hidden.items()
        }
        logits = logits.reshape(-1, logits.shape[-1])[real]  # (N, V)
        loss = functional.cross_entropy(
            logits.float(), targets[real], label_smoothing=label_smoothing
        )
        return Outputs(loss, logits, hidden)

    def graphs(self, model: nn.Module) -> dict[str, Graph]:
        return captioner_graphs(_captioner(model), self.image_size)

    def features(self, model: nn.Module, batch: Batch) -> Tensor:
        return _captioner(model).projected(batch.get("images"), batch.get("features"))

    def channel_graph(self, model: nn.Module) -> tuple[nn.Module, tuple[Tensor, ...]]:
        size = self.image_size
        return GridFeatures(_captioner(model)), (torch.zeros(2, size, size, 3),)

    def predict(self, run: Run, inputs: np.ndarray, steps: int | None = None) -> list[str]:
        ids = generate(run, inputs, self.settings.generation, steps)
        return [self.tokenizer.decode(row) for row in ids]

    def metrics(self, predictions: Sequence[str], split: SplitName) -> dict[str, float]:
        scores = self._scorer(split, len(predictions)).score(predictions)
        # eos is a step of the decoder too, unless the caption was cut off before it
        longest = self.settings.generation.max_length
        tokens = [min(len(prediction.split()) + 1, longest) for prediction in predictions]
        return {**scores, "mean_tokens": float(np.mean(tokens))}

    def per_example(
        self, predictions: Sequence[str], split: SplitName
    ) -> dict[str, NDArray[np.float64]]:
        return self._scorer(split, len(predictions)).per_image(predictions)

    def _scorer(self, split: SplitName, count: int) -> CaptionScorer:
        """The scorer of a split's first `count` images; its references are counted once."""
        if (split, count) not in self._scorers:
            references = self.split(split).references[:count]
            self._scorers[split, count] = CaptionScorer(references, self.settings.meteor)
        return self._scorers[split, count]

    def metric_names(self) -> tuple[str, ...]:
        has_meteor = java_available() if self.settings.meteor is None else self.settings.meteor
        return (*SCORES, *(["meteor"] if has_meteor else []), "mean_tokens")

    def check_assets(self, directory: Path) -> None:
        path = directory / TOKENIZER
        if path.exists() and Tokenizer.load(path).words != self.tokenizer.words:
            raise CheckpointError(
                f"{path}: must have the words of the training captions, in their order, but has "
                "others; what the weights learnt of a word would go to another"
            )

    def write_assets(self, directory: Path, threads: int) -> list[str]:
        self.tokenizer.save(directory / TOKENIZER)
        preprocessing = {
            "image_size": self.image_size,
            "resize": "bicubic, whole image to a square",
            "colour": "RGB, uint8, (batch, height, width, 3); the encoder normalises",
            "generation": self.settings.generation.model_dump(),
            "threads": threads,
        }
        write_json(directory / "preprocessing.json", preprocessing)
        return [TOKENIZER, "preprocessing.json"]


def _captioner(model: nn.Module) -> Captioner:
    assert isinstance(model, Captioner)
    return model
