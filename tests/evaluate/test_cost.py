"""Counts at known values."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from autocomp.evaluate.cost import count_macs, count_parameters
from autocomp.models.transformer import Attention


@dataclass(frozen=True)
class OneGraph:
    module: nn.Module
    inputs: dict[str, torch.Tensor]
    sequential: bool = False


@pytest.mark.parametrize(
    ("module", "shape", "macs"),
    [
        (nn.Linear(8, 5), (3, 8), 3 * 8 * 5),
        (nn.Conv2d(3, 4, 3, padding=1, bias=False), (1, 3, 6, 6), 36 * 4 * 3 * 9),
        (nn.Conv2d(4, 4, 3, groups=4, bias=False), (1, 4, 6, 6), 16 * 4 * 9),
        (Attention(32, 2), (1, 5, 32), 4 * 5 * 32 * 32 + 2 * 5 * 5 * 32),
        (nn.BatchNorm2d(4), (1, 4, 6, 6), 0),
    ],
    ids=["linear", "convolution", "depthwise", "attention", "norm"],
)
def test_multiply_adds_of_a_layer(module: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    assert count_macs({"only": OneGraph(module.eval(), {"x": torch.zeros(shape)})}, 7) == macs


@pytest.mark.parametrize("steps", [1, 12])
def test_a_sequential_graph_counts_every_step(steps: int) -> None:
    inputs = {"x": torch.zeros(1, 8)}
    once = OneGraph(nn.Linear(8, 100), inputs)
    each = OneGraph(nn.Linear(8, 3), inputs, sequential=True)
    assert count_macs({"encoder": once, "decoder": each}, steps) == 800 + 24 * steps


def test_a_shared_weight_is_counted_once_and_a_zero_not_as_nonzero() -> None:
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(4, 6))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[0].weight[:2] = 0
        model[1].bias.fill_(1)
    assert count_parameters(model) == {"params": 30, "nonzeros": 22}
