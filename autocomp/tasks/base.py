"""The contract between a user's problem and everything that compresses, retrains and measures it.

A task knows its data, its loss, how its model runs as a few graphs, and how its predictions are
scored. Nothing else in autocomp knows what an image or a caption is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocomp.data.split import SplitName

Batch = Mapping[str, Tensor]


class Run(Protocol):
    """Runs one graph of a model by name, in PyTorch or in the target's runtime alike."""

    def __call__(self, name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class Graph:
    """One part of a model as it is exported.

    `module` takes `inputs` by position, in order, and returns a tuple in the order of `outputs`.
    Its parameters are those of the model (the same tensors). `dynamic` names, for an input or an
    output, the axes whose length may change. A `sequential` graph runs once for each step of an
    inference (each token, say), the others once.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    sequential: bool = False


def torch_run(graphs: Mapping[str, Graph]) -> Run:
    """Runs graphs in PyTorch."""

    def run(name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        graph = graphs[name]
        with torch.no_grad():
            outputs = graph.module(*(torch.from_numpy(inputs[key]) for key in graph.inputs))
        return {key: out.numpy() for key, out in zip(graph.outputs, outputs, strict=True)}

    return run


@dataclass(frozen=True)
class Outputs:
    """What a training step needs of one batch.

    `loss` is a scalar; `logits` (N, K) has one row for each target; `hidden` maps module names to
    activations, for distillation between layers of the same name.
    """

    loss: Tensor
    logits: Tensor
    hidden: dict[str, Tensor]


class Task(Protocol):
    """A user's problem. `read` and `predict` are all that runs at deployment."""

    def build(self) -> nn.Module:
        """The dense model with its initial weights; the same on every call."""

    @property
    def image_size(self) -> int:
        """Pixels a side of the images the model takes; 0 where its examples are none."""

    def resized(self, image_size: int) -> Task:
        """The same problem with images of another size; `build` gives a model that takes these."""

    def resize_(self, model: nn.Module) -> None:
        """Let a model that was built for images of another size take this task's."""

    def fingerprint(self) -> str:
        """A name for everything a trained dense model depends on, but for how it is trained."""

    def training_batches(
        self, models: Sequence[nn.Module], batch_size: int, trainable: Collection[str], seed: int
    ) -> Iterator[tuple[Batch, ...]]:
        """Endless batches of the train split: the same examples once for each of `models`.

        What is not `trainable` in the first model, and nothing of the others, may be computed
        once and cached.
        """

    def forward(self, model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Outputs:
        """Run the model on a training batch."""

    def graphs(self, model: nn.Module) -> dict[str, Graph]:
        """The graphs to export, by name; `model` is in evaluation mode."""

    def features(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the model's first part makes of a batch (B, S, d), S places of a square grid."""

    def channel_graph(self, model: nn.Module) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The part whose channels can be pruned, under the model's own names, and its inputs."""

    def left_out(self) -> list[str]:
        """What of the splits read so far could not be used, one line a split, and why."""

    def size(self, split: SplitName) -> int:
        """Number of examples in a split."""

    def names(self, split: SplitName) -> tuple[str, ...]:
        """What the data set calls the examples of a split, in their order."""

    def inputs(self, split: SplitName, start: int, stop: int) -> np.ndarray:
        """Examples [start, stop) of a split as `predict` takes them."""

    def raw_inputs(self, split: SplitName, count: int) -> list[bytes]:
        """The first `count` examples as they reach a deployed model (JPEG files, say)."""

    def read(self, raw: bytes) -> np.ndarray:
        """One raw example as `predict` takes it, with a leading batch axis of 1."""

    def predict(self, run: Run, inputs: np.ndarray, steps: int | None = None) -> list[Any]:
        """One prediction an example; with `steps`, a sequential model takes exactly that many."""

    def said(self, prediction: Any) -> str:
        """A prediction in words, for people."""

    def reference(self, split: SplitName, index: int) -> str:
        """What an example should give, in words: one of its captions, the name of its class."""

    def metrics(self, predictions: Sequence[Any], split: SplitName) -> dict[str, float]:
        """The quality of predictions for the first `len(predictions)` examples of a split."""

    def per_example(
        self, predictions: Sequence[Any], split: SplitName
    ) -> dict[str, NDArray[np.float64]]:
        """Those of `metrics` that are means over the examples, as the values (N,) averaged."""

    def metric_names(self) -> tuple[str, ...]:
        """The names that `metrics` gives on this machine."""

    def check_assets(self, directory: Path) -> None:
        """`CheckpointError` if the weights in a folder were trained with other assets."""

    def write_assets(self, directory: Path, threads: int) -> list[str]:
        """Write what inference on `threads` needs beside the graphs; the names of the files."""
