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


STATISTICS = ["1.running_mean", "1.running_var"]
RESULTS = ["0.weight", "3.weight"]


@pytest.mark.parametrize(
    ("fields", "widths", "results"),
    [
        ({"bits": {"0": 8}, "activation_bits": 6}, {"0.weight": 8, "0.bias": 8}, 6),
        (
            {"bits": {"1": 16}, "batch_norm_bits": 5},
            {"1.weight": 16, "1.bias": 16} | dict.fromkeys(STATISTICS, 5),
            None,
        ),
        ({"bits": 32, "batch_norm_bits": 8}, dict.fromkeys(STATISTICS, 8), None),
        ({"bits": 32, "activation_bits": 8}, {}, 8),
        ({"bits": 32}, {}, None),
    ],
    ids=["parameters and results", "statistics apart", "statistics alone", "results alone", "none"],
)
def test_each_kind_of_tensor_has_its_bits(
    fields: dict[str, Any], widths: dict[str, int], results: int | None, compressed: Compressed
) -> None:
    before = {name: one.clone() for name, one in compressed.module.state_dict().items()}
    assert fix_(compressed, FixedPoint.model_validate({"layers": "**", **fields})) == []
    assert {name: one.format.bits for name, one in compressed.fixed.items()} == widths
    assert {name: one.bits for name, one in compressed.results.items()} == (
        {} if results is None else dict.fromkeys(RESULTS, results)
    )
    for name, tensor in compressed.module.state_dict().items():
        own = compressed.fixed[name].values() if name in widths else before[name]
        assert torch.equal(tensor, own)


def test_the_last_step_decides(compressed: Compressed) -> None:
    quantize_(compressed, Quantize(layers="0", bits=8))
    fix_(compressed, FixedPoint(layers="0", bits=8, activation_bits=6))
    assert not compressed.quantized
    assert set(compressed.results) == {"0.weight"}
    quantize_(compressed, Quantize(layers="0", bits=16))
    assert set(compressed.fixed) == {"0.bias"}
    assert compressed.coded == {"0.bias", "0.weight"}
    assert set(compressed.results) == {"0.weight"}  # which are rounded whatever the weight is


def test_integer_kernels_take_over_what_they_round(compressed: Compressed) -> None:
    fix_(compressed, FixedPoint(layers="0", bits=8, activation_bits=6))
    fix_(compressed, FixedPoint(layers="0", bits=4))
    assert set(compressed.results) == {"0.weight"}
    (line,) = quantize_(compressed, Quantize(layers="0", bits=8))
    assert line.startswith("0: activations are in fixed point no longer")
    assert not compressed.results


def test_norms_are_among_what_can_be_fixed(compressed: Compressed) -> None:
    assert fixable_layers(compressed.module) == ["0", "1", "3"]
    with pytest.raises(PolicyError, match=r"fixed_point\.layers: must match a layer"):
        fix_(compressed, FixedPoint(layers="2", bits=8))


def test_a_convolution_in_integers_keeps_its_activations_and_says_so(
    compressed: Compressed,
) -> None:
    quantize_(compressed, Quantize(layers="0", bits=8))
    quantize_(compressed, Quantize(layers="3", bits=8, activation_bits=32))
    (line,) = fix_(compressed, FixedPoint(layers="**", bits=32, activation_bits=8))
    assert line == "0: activations stay in 8 bits, as an earlier quantize step says"
    assert set(compressed.results) == {"3.weight"}
    assert set(compressed.quantized) == {"0.weight", "3.weight"}


def test_a_head_that_shares_an_embedding_is_rounded_and_an_embedding_alone_is_not() -> None:
    model = nn.ModuleDict({"words": nn.Embedding(9, 4), "more": nn.Embedding(3, 4)})
    model["head"] = nn.Linear(4, 9, bias=False)
    model["head"].weight = model["words"].weight
    compressed = Compressed(model)
    assert fix_(compressed, FixedPoint(layers="**", bits=8, activation_bits=8)) == []
    assert set(compressed.results) == {"words.weight"}


def test_a_tied_head_has_its_bias_to_round() -> None:
    model = nn.ModuleDict({"words": nn.Embedding(9, 4), "head": nn.Linear(4, 9)})
    model["head"].weight = model["words"].weight
    compressed = Compressed(model)
    (line,) = fix_(compressed, FixedPoint(layers="head", bits=8, activation_bits=8))
    assert line.startswith("head: results are rounded where the layer that they share their weight")
    assert set(compressed.fixed) == {"head.bias"}
    assert compressed.results == {}
    assert fix_(compressed, FixedPoint(layers="**", bits=32, activation_bits=8)) == []
    assert set(compressed.results) == {"words.weight"}


def test_what_has_no_format_is_named() -> None:
    compressed = Compressed(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)))
    (line,) = fix_(compressed, FixedPoint(layers="**", bits=8))
    assert line == (
        "1.weight and 1 more: left in fp32, for fixed_point has no format for what LayerNorm holds"
    )
