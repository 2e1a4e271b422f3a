"""Small models with each pattern a target rewrites, and how to compress and lower them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autocomp.compress.formats import Compressed, LayerFormat, quantize_tensor


@dataclass(frozen=True)
class SmallGraph:
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    calls: int = 1


class Mlp(nn.Module):
    """K = 40 is no multiple of a group of 32; a hidden width of 24 is less than one."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(40, 24)
        self.down = nn.Linear(24, 40, bias=False)
        self.head = nn.Linear(40, 17)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.head(x + self.down(torch.relu(self.up(x)))),)


class Step(nn.Module):
    """A decoder-like step: a head tied to the embedding, and a cache that grows."""

    def __init__(self, words: int = 300, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.norm = nn.LayerNorm(width)
        self.ffn = nn.Linear(width, width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, token: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        new = torch.cat([past, self.ffn(self.norm(self.embedding(token)))], 1)
        return self.head(new.mean(1)), new


class ConvNet(nn.Module):
    """uint8 pixels in; convolutions with and without a bias before their norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.norm2 = nn.BatchNorm2d(8, eps=1e-3)
        self.head = nn.Linear(8, 5)
        for norm in (self.norm, self.norm2):
            for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(values, 0.5, 1.5)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        x = images.permute(0, 3, 1, 2).float() / 255  # (B, 3, H, W)
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.nn.functional.relu6(self.norm2(self.depthwise(x)))
        return (self.head(x.mean((2, 3))),)


class Part(nn.Module):
    """A graph's wrapper: the same tensors under other names."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.inner(*inputs)


def mlp_graph(model: nn.Module, leading: tuple[int, ...] = (1, 1)) -> SmallGraph:
    return SmallGraph(
        Part(model),
        {"x": torch.zeros(*leading, 40)},
        ("y",),
        {"x": {0: "batch"}, "y": {0: "batch"}},
    )


def step_graph(model: Step) -> SmallGraph:
    inputs = {
        "token": torch.zeros(1, 1, dtype=torch.long),
        "past": torch.zeros(1, 2, model.norm.weight.shape[0]),
    }
    dynamic = {
        "token": {0: "batch"},
        "past": {0: "batch", 1: "time"},
        "logits": {0: "batch"},
        "new": {0: "batch", 1: "time_1"},
    }
    return SmallGraph(Part(model), inputs, ("logits", "new"), dynamic)


def conv_graph(model: nn.Module) -> SmallGraph:
    images = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    return SmallGraph(Part(model), {"images": images}, ("y",), {"images": {0: "batch"}})


def compress(
    model: nn.Module,
    bits: int,
    group_size: int | None = 32,
    only: Collection[str] = (),
    **fields: Any,
) -> Compressed:
    """`model` with its matrices at `bits` (32: as they are), holding the dequantised values."""
    compressed = Compressed(model.eval())
    for name, parameter in model.named_parameters():
        if bits < 32 and parameter.ndim == 2 and (not only or name in only):
            tensor = quantize_tensor(
                parameter, LayerFormat(bits=bits, group_size=group_size, **fields)
            )
            parameter.data = tensor.dequantize()
            compressed.quantized[name] = tensor
    return compressed


def in_torch(model: nn.Module, *inputs: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        return [out.numpy() for out in model(*map(torch.from_numpy, inputs))]
