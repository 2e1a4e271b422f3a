"""What a task of one's own begins with: arrays in, one graph, arrays out."""

from __future__ import annotations

import hashlib
import inspect
import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocomp.data.split import SplitName
from autocomp.errors import DataError, UserError
from autocomp.models.reshape import tensors
from autocomp.tasks.base import Batch, Graph, Outputs, Run, torch_run
from autocomp.tasks.stages import watched_stages

INPUTS = ("float32", "int64", "int32", "int16", "int8", "uint8", "bool")
TARGETS = ("float32", "int64")
"""What models take, and what PyTorch's losses do; NumPy's own float64 is neither."""
CLOSEST = {"f": "float32", "i": "int64", "u": "int64"}
"""By the kind of a NumPy type: the one of these that holds the same numbers."""


class ArrayTask(ABC):
    """A `Task` of which a subclass says four things; any other may be changed as well.

    The model takes inputs (B, ...) and gives outputs (B, K); in a file an example is a NumPy array
    (`.npy`). `seed` decides on the initial weights.
    """

    seed = 0
    image_size = 0  # its examples are no images

    @abstractmethod
    def net(self) -> nn.Module:
        """The dense model with random weights; PyTorch's generator is seeded."""

    @abstractmethod
    def arrays(self, split: SplitName) -> tuple[np.ndarray, np.ndarray]:
        """The inputs (N, ...) and the targets (N, ...) of a split, each split with its own.

        Inputs are float32, bool or whole numbers, targets float32 or int64.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """What training makes small, a scalar, of a batch; smoothing is for labels that have it."""

    @abstractmethod
    def scores(self, predictions: Sequence[Any], targets: np.ndarray) -> dict[str, np.ndarray]:
        """For each metric its value for each example, (N,); a model's is the mean."""

    def decide(self, outputs: np.ndarray) -> list[Any]:
        """The prediction of each example, as JSON has it: the likeliest class of outputs (N, K)."""
        if outputs.ndim != 2:
            raise UserError(
                "task: decide must be the task's own where outputs are not (B, K), "
                f"but the net gives {outputs.shape}"
            )
        return [int(one) for one in outputs.argmax(axis=1)]

    def build(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return self.net()

    def split(self, name: SplitName) -> tuple[np.ndarray, np.ndarray]:
        """`arrays`, asked for once and checked."""
        if name not in self._known:
            try:
                self._known[name] = self.arrays(name)
            except OSError as failure:
                raise DataError(
                    f"task: arrays({name!r}) must find its data, but {failure}"
                ) from None
        inputs, targets = self._known[name]
        _check_type(f"{name}: inputs", inputs, INPUTS)
        _check_type(f"{name}: targets", targets, TARGETS)
        if len(inputs) != len(targets) or not len(inputs):
            raise DataError(
                f"{name}: must have a target for each of its inputs, "
                f"but has {len(targets)} for {len(inputs)}"
            )
        return inputs, targets

    @cached_property
    def _known(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {}

    def resized(self, image_size: int) -> ArrayTask:
        raise UserError("resize: must be left out, for the examples of this task are no images")

    def resize_(self, model: nn.Module) -> None:
        self.resized(self.image_size)

    def fingerprint(self) -> str:
        """Of the training data, the initial weights and the source of the class."""
        digest = hashlib.sha256(inspect.getsource(sys.modules[type(self).__module__]).encode())
        initial = [one.numpy() for one in tensors(self.build()).values()]
        for array in (*self.split("train"), *initial):
            digest.update(repr((array.shape, array.dtype)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def training_batches(
        self, models: Sequence[nn.Module], batch_size: int, trainable: Collection[str], seed: int
    ) -> Iterator[tuple[Batch, ...]]:
        inputs, targets = (torch.from_numpy(np.array(one)) for one in self.split("train"))
        generator = np.random.default_rng(seed)
        while True:
            order = torch.from_numpy(generator.permutation(len(inputs)))
            # a small split still fills a batch; otherwise the incomplete last batch is left out
            for start in range(0, max(1, len(order) - batch_size + 1), batch_size):
                rows = order[start : start + batch_size]
                batch = {"inputs": inputs[rows], "targets": targets[rows]}
                yield tuple(batch for _ in models)

    def forward(self, model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Outputs:
        with watched_stages(model) as hidden:
            outputs = _tensor(model(batch["inputs"]))
        loss = self.loss(outputs.float(), batch["targets"], label_smoothing)
        if not isinstance(loss, Tensor) or loss.ndim:
            found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{loss!r}"
            raise UserError(
                f"task: loss must be a scalar tensor, a mean over the batch say, but got {found}"
            )
        return Outputs(loss, outputs, hidden)

    def graphs(self, model: nn.Module) -> dict[str, Graph]:
        example = {"inputs": torch.from_numpy(self.inputs("train", 0, 1))}
        axes = {"inputs": {0: "batch"}, "outputs": {0: "batch"}}
        return {"model": Graph(_Tuple(model), example, ("outputs",), axes)}

    def features(self, model: nn.Module, batch: Batch) -> Tensor:
        """The outputs as those of a single place: no pruning changes their width (1312.6184)."""
        outputs: Tensor = model(batch["inputs"])
        return outputs.unsqueeze(1)

    def channel_graph(self, model: nn.Module) -> tuple[nn.Module, tuple[Tensor, ...]]:
        return model, (torch.from_numpy(self.inputs("train", 0, 2)),)

    def left_out(self) -> list[str]:
        return []

    def size(self, split: SplitName) -> int:
        return len(self.split(split)[0])

    def names(self, split: SplitName) -> tuple[str, ...]:
        return tuple(f"{split}_{index:05d}" for index in range(self.size(split)))

    def inputs(self, split: SplitName, start: int, stop: int) -> np.ndarray:
        return np.array(self.split(split)[0][start:stop])

    def raw_inputs(self, split: SplitName, count: int) -> list[bytes]:
        return [_npy(one) for one in self.split(split)[0][:count]]

    def read(self, raw: bytes) -> np.ndarray:
        try:
            example: np.ndarray = np.load(io.BytesIO(raw), allow_pickle=False)
        except (ValueError, OSError, EOFError) as failure:
            raise DataError(f"must be a NumPy array (.npy), but {failure}") from None
        inputs = self.split("train")[0]
        if (example.shape, example.dtype) != (inputs.shape[1:], inputs.dtype):
            raise DataError(
                f"must be an array of shape {inputs.shape[1:]} and type {inputs.dtype}, "
                f"but got {example.shape} and {example.dtype}"
            )
        return example[None]

    def predict(self, run: Run, inputs: np.ndarray, steps: int | None = None) -> list[Any]:
        predictions = self.decide(run("model", inputs=inputs)["outputs"])
        if len(predictions) != len(inputs):
            raise UserError(
                f"task: decide must give a prediction for each of {len(inputs)} examples, "
                f"but gives {len(predictions)}"
            )
        return predictions

    def said(self, prediction: Any) -> str:
        return str(prediction)

    def reference(self, split: SplitName, index: int) -> str:
        return str(self.split(split)[1][index])

    def metrics(self, predictions: Sequence[Any], split: SplitName) -> dict[str, float]:
        scores = self.per_example(predictions, split)
        return {name: float(each.mean()) for name, each in scores.items()}

    def per_example(
        self, predictions: Sequence[Any], split: SplitName
    ) -> dict[str, NDArray[np.float64]]:
        found = self.scores(predictions, self.split(split)[1][: len(predictions)])
        if not isinstance(found, dict):
            raise UserError(f"task: scores must be a dictionary, but got {type(found).__name__}")
        scores = {name: np.asarray(each, dtype=np.float64) for name, each in found.items()}
        for name, each in scores.items():
            if each.shape != (len(predictions),):
                raise UserError(
                    f"task: scores must have one {name} for each of {len(predictions)} examples, "
                    f"but has shape {each.shape}"
                )
        return scores

    def metric_names(self) -> tuple[str, ...]:
        run = torch_run(self.graphs(self.build().eval()))
        return tuple(self.metrics(self.predict(run, self.inputs("dev", 0, 1)), "dev"))

    def check_assets(self, directory: Path) -> None:  # noqa: B027  # there are none
        """Nothing could be another task's."""

    def write_assets(self, directory: Path, threads: int) -> list[str]:
        return []


def _check_type(where: str, array: Any, known: tuple[str, ...]) -> None:
    is_array = isinstance(array, np.ndarray)
    found = str(array.dtype) if is_array else type(array).__name__
    if found not in known:
        closest = CLOSEST.get(array.dtype.kind) if is_array else None
        hint = f"; .astype(np.{closest}) makes one" if closest else ""
        rule = f"must be an array of {', '.join(known)}"
        raise DataError(f"{where}: {rule}, but got {found}{hint}")


class _Tuple(nn.Module):
    """`net` as a graph, which gives a tuple."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> tuple[Tensor]:
        return (_tensor(self.net(inputs)),)


def _tensor(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise UserError(f"task: net must give one tensor, but gives {type(outputs).__name__}")
    return outputs


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
