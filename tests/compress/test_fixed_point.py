"""A fixed point step: which tensors are held in how many bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from autocomp.compress.fixed_point import fix_, fixable_layers
from autocomp.compress.formats import Compressed
from autocomp.compress.quantize import quantize_
from autocomp.errors import PolicyError
from autocomp.policy import FixedPoint, Quantize


@pytest.fixture
def compressed() -> Compressed:
    torch.manual_seed(0)
    return Compressed(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    )


def widths(compressed: Compressed) -> dict[str, tuple[int, int]]:
    return {
        name: (one.format.bits, one.format.activation_bits)
        for name, one in compressed.fixed.items()
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"bits": {"0": 8}, "activation_bits": 6},
            {"0.weight": (8, 6), "0.bias": (8, 32)},
        ),
        (
            {"bits": {"1": 16}, "batch_norm_bits": 5},
            {"1.weight": (16, 32), "1.bias": (16, 32)}
            | dict.fromkeys(["1.running_mean", "1.running_var"], (5, 32)),
        ),
        (
            {"bits": 32, "batch_norm_bits": 8},
            dict.fromkeys(["1.running_mean", "1.running_var"], (8, 32)),
        ),
        ({"bits": 32, "activation_bits": 8}, {}),
    ],
    ids=["parameters and results", "statistics apart", "statistics alone", "nothing"],
)
def test_each_kind_of_tensor_has_its_bits(
    fields: dict[str, Any], expected: dict[str, tuple[int, int]], compressed: Compressed
) -> None:
    before = {name: one.clone() for name, one in compressed.module.state_dict().items()}
    assert fix_(compressed, FixedPoint.model_validate({"layers": "**", **fields})) == []
    assert widths(compressed) == expected
    for name, tensor in compressed.module.state_dict().items():
        own = compressed.fixed[name].values() if name in expected else before[name]
        assert torch.equal(tensor, own)
    assert compressed.rounds_activations == any(bits < 32 for _, bits in expected.values())


def test_the_last_step_decides(compressed: Compressed) -> None:
    quantize_(compressed, Quantize(layers="0", bits=8))
    fix_(compressed, FixedPoint(layers="0", bits=8))
    assert not compressed.quantized
    quantize_(compressed, Quantize(layers="0", bits=16))
    assert set(compressed.fixed) == {"0.bias"}
    assert compressed.coded == {"0.bias", "0.weight"}


def test_norms_are_among_what_can_be_fixed(compressed: Compressed) -> None:
    assert fixable_layers(compressed.module) == ["0", "1", "3"]
    with pytest.raises(PolicyError, match=r"fixed_point\.layers: must match a layer"):
        fix_(compressed, FixedPoint(layers="2", bits=8))
