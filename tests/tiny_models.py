"""A captioner small enough to build in a test, and how to run its graphs in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from autocomp.apply import apply_
from autocomp.clock import Clock
from autocomp.compress.transformer import keep_columns_, keep_rows_
from autocomp.models.transformer import Attention, DecoderLayer
from autocomp.models.unpadding import Unpadding
from autocomp.policy import Policy
from autocomp.tasks.base import Run
from autocomp.tasks.captioning import Captioning, CaptioningSettings
from autocomp.work import Work

SECTION: dict[str, Any] = {
    "kind": "captioning",
    "data": {"kind": "scenes", "train": 48, "dev": 16, "test": 16, "image_size": 32},
    "model": {"kind": "cnn_transformer", "d_model": 32, "heads": 2, "ffn": 64, "decoder_layers": 2},
    "generation": {"max_length": 12},
    "dense": {"steps": 8, "lr": 3.0e-3, "batch_size": 16, "precision": "fp32"},
    "min_count": 1,
    "captions_per_image": 2,
    "meteor": False,
}


def tiny_task(model: Mapping[str, Any] | None = None, **changes: Any) -> Captioning:
    """The tiny task with other `model` settings, or other sections altogether."""
    section = {**SECTION, **changes, "model": {**SECTION["model"], **(model or {})}}
    return Captioning(CaptioningSettings.model_validate(section))


RECURRENT: dict[str, dict[str, Any]] = {
    f"{cell} {decoder}": {
        "kind": "cnn_lstm",
        "decoder": decoder,
        "cell": cell,
        "width": 32,
        "units": 64,
    }
    for decoder in ("attention", "merge")
    for cell in ("lstm", "gru")
}
"""Sections of models with a recurrent decoder."""


def recurrent_task(model: str) -> Captioning:
    """The tiny task with one of the `RECURRENT` models."""
    return Captioning(CaptioningSettings.model_validate(SECTION | {"model": RECURRENT[model]}))


def tiny_captioner(task: Captioning) -> Any:
    """Its dense model in evaluation mode, with BatchNorm statistics that are not 0 and 1."""
    model = task.build().eval()
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model


def keep_heads_(attention: Attention, heads: list[int]) -> None:
    """Leave only the given heads, without any of the code under test."""
    width = attention.head_dim
    kept = torch.tensor([head * width + unit for head in heads for unit in range(width)])
    for projection in (attention.q, attention.k, attention.v):
        keep_rows_(projection, kept)
    keep_columns_(attention.o, kept)


def whole_captions(layer: DecoderLayer, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """What a decoder layer makes of x (B * K, T, d), captions without padding."""
    unpadding = Unpadding(torch.ones(x.shape[:2]))
    cross = layer.cross_attention.keys_values(memory)
    return unpadding.restore(layer(unpadding.remove(x), *cross, unpadding))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of everything a model holds."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: Mapping[str, torch.Tensor], model: nn.Module) -> set[str]:
    """The names of the tensors that are not bit for bit as they were."""
    after = model.state_dict()
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def carry_out(work: Work, *steps: dict[str, Any]) -> list[str]:
    """What of the steps of a policy was skipped, and why."""
    return apply_(work, Policy.model_validate({"steps": steps}), Clock())


class Watched:
    """A run that writes down what it is asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.calls: list[str] = []
        self.batches: set[int] = set()

    def __call__(self, name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        self.calls.append(name)
        if name == "encoder":
            self.batches.add(len(inputs["images"]))
        return self.run(name, **inputs)
