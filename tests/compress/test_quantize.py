"""Quantised layers hold the values of their codes; the others are untouched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autocomp.compress.formats import Compressed, LayerFormat, QuantizedTensor
from autocomp.compress.quantize import layer_formats, quantizable_layers, quantize_
from autocomp.errors import PolicyError
from autocomp.policy import Quantize


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(20, 40)
        self.conv = nn.Conv2d(3, 4, 1)
        self.up = nn.Linear(40, 24)
        self.down = nn.Linear(24, 40)
        self.head = nn.Linear(40, 20, bias=False)
        self.head.weight = self.embedding.weight


@pytest.fixture
def compressed() -> Compressed:
    return Compressed(Model())


def test_layers_that_share_a_weight_go_by_the_first_name(compressed: Compressed) -> None:
    assert list(quantizable_layers(compressed.module)) == ["embedding", "conv", "up", "down"]


@pytest.mark.parametrize("bits", [8, 4])
def test_the_module_computes_what_the_codes_stand_for(bits: int, compressed: Compressed) -> None:
    model, before = compressed.module, dict(compressed.module.named_parameters())
    values = {name: parameter.detach().clone() for name, parameter in before.items()}
    quantize_(compressed, Quantize(layers="**", bits=bits))
    assert set(compressed.quantized) == {
        "embedding.weight",
        "conv.weight",
        "up.weight",
        "down.weight",
    }
    for name, parameter in model.named_parameters():
        assert parameter is before[name]
        if name in compressed.quantized:
            assert torch.equal(parameter, compressed.quantized[name].dequantize())
            assert not torch.equal(parameter, values[name])
        else:
            assert torch.equal(parameter, values[name])
    assert model.head.weight is model.embedding.weight


@pytest.mark.parametrize(
    ("bits", "widths"),
    [
        (32, {}),
        ({"up": 8, "down": 32}, {"up.weight": 8}),
        ({"up": 8, "down": 4, "elsewhere": 4}, {"up.weight": 8, "down.weight": 4}),
    ],
    ids=["32 everywhere", "32 for one", "by layer"],
)
def test_every_layer_has_its_own_width(
    bits: int | dict[str, int], widths: Mapping[str, int], compressed: Compressed
) -> None:
    before = {name: p.detach().clone() for name, p in compressed.module.named_parameters()}
    quantize_(compressed, Quantize(layers=("up", "down"), bits=bits))
    assert {name: q.format.bits for name, q in compressed.quantized.items()} == widths
    for name, parameter in compressed.module.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in widths)


def test_excluded_layers_stay(compressed: Compressed) -> None:
    quantize_(
        compressed, Quantize(layers="**", exclude=("embedding", "conv"), bits=4, group_size=16)
    )
    assert set(compressed.quantized) == {"up.weight", "down.weight"}
    assert compressed.quantized["up.weight"].scales.shape == (24, 3)


def test_the_last_step_decides(compressed: Compressed) -> None:
    quantize_(compressed, Quantize(layers="**", bits=8))
    quantize_(compressed, Quantize(layers="up", bits=4))
    assert {q.format.bits for n, q in compressed.quantized.items() if n != "up.weight"} == {8}
    up = compressed.quantized["up.weight"]
    assert up.format.bits == 4
    assert torch.equal(compressed.module.up.weight, up.dequantize())


@pytest.mark.parametrize("rounding", ["nearest", "compensated"])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_what_was_rounded_once_is_not_moved_again(
    bits: int, granularity: str, scheme: str, rounding: str, compressed: Compressed
) -> None:
    x = torch.randn(80, 40, generator=torch.Generator().manual_seed(0))
    fields = {"granularity": granularity, "scheme": scheme, "rounding": rounding, "group_size": 16}
    step = Quantize.model_validate({"layers": "up", "bits": bits, **fields})
    once = quantized_again(compressed, step, x)
    later = step.model_copy(update={"layers": ("up", "down"), "activation_bits": 32})
    again = quantized_again(compressed, later, x)
    assert torch.equal(once.codes, again.codes)
    assert torch.equal(once.scales, again.scales)
    assert again.format == once.format.model_copy(update={"activation_bits": 32})


@pytest.mark.parametrize("activation_bits", [[8, 32], [32, 8]], ids=str)
def test_a_convolution_is_rounded_again_only_for_levels_it_may_not_have(
    activation_bits: list[int],
) -> None:
    torch.manual_seed(0)
    compressed = Compressed(nn.Sequential(nn.Conv2d(8, 8, 3)))
    found = []
    for bits in activation_bits:
        quantize_(compressed, Quantize(layers="**", bits=8, activation_bits=bits))
        found.append(compressed.quantized["0.weight"])
    assert [one.format.activation_bits for one in found] == activation_bits
    assert torch.equal(found[0].codes, found[1].codes) == (activation_bits[0] == 8)
    assert found[1].levels().abs().max() == 64


def quantized_again(compressed: Compressed, step: Quantize, x: Tensor) -> QuantizedTensor:
    model = compressed.module
    assert quantize_(compressed, step, [lambda: model.down(model.up(x))]) == []
    return compressed.quantized["up.weight"]


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("kind", ["linear", "convolution", "convolution without bias"])
def test_compensated_layers_give_as_much_as_before(kind: str, bits: int, scheme: str) -> None:
    torch.manual_seed(0)
    is_convolution, is_restored = kind != "linear", kind == "convolution"
    layer = nn.Conv2d(6, 8, 3, bias=is_restored) if is_convolution else nn.Linear(64, 8, bias=False)
    model = nn.Sequential(layer)
    x = torch.randn(10, 6, 9, 9) + 0.5 if is_convolution else torch.randn(300, 64) + 0.5
    fields = {"bits": bits, "scheme": scheme, "rounding": "compensated", "activation_bits": 32}
    with torch.no_grad():
        before = model(x).transpose(0, 1).flatten(1)  # (8, outputs)
        step = Quantize.model_validate({"layers": "**", **fields})
        quantize_(Compressed(model), step, [lambda: model(x)])
        after = model(x).transpose(0, 1).flatten(1)
    if is_restored:  # its means are
        torch.testing.assert_close(after.mean(dim=1), before.mean(dim=1), rtol=0, atol=1e-3)
        before, after = (one - one.mean(dim=1, keepdim=True) for one in (before, after))
    slopes = (before * after).sum(dim=1) / before.square().sum(dim=1)
    torch.testing.assert_close(slopes, torch.ones(8), rtol=0, atol=2e-3)


def test_another_rounding_of_what_is_rounded_already_is_reported(compressed: Compressed) -> None:
    step = Quantize(layers="up", bits=3)
    assert quantize_(compressed, step) == []
    once = compressed.quantized["up.weight"]
    lines = quantize_(compressed, step.model_copy(update={"rounding": "compensated"}))
    assert lines == ["up: codes stay as an earlier step chose them, in the same grid"]
    assert compressed.quantized["up.weight"].format == once.format


@pytest.mark.parametrize("layers", ["convs", "head", "upp"])
def test_a_pattern_that_means_nothing_is_an_error(layers: str, compressed: Compressed) -> None:
    with pytest.raises(PolicyError, match=r"quantize\.layers: must match a layer"):
        quantize_(compressed, Quantize(layers=layers, bits=8))


def test_a_convolution_has_eight_bits_a_scale_a_channel_and_ranges(compressed: Compressed) -> None:
    step = Quantize(layers="conv", bits=8, ranges="minmax")
    assert quantize_(compressed, step) == []
    tensor = compressed.quantized["conv.weight"]
    assert tensor.format == LayerFormat(bits=8, ranges="minmax", reduce_range=True)
    assert tensor.codes.shape == (4, 3, 1, 1)
    assert tensor.scales.shape == (4, 1)


@pytest.mark.parametrize(
    ("layer", "fields", "is_reduced"),
    [
        (nn.Conv2d(8, 8, 3), {}, True),
        (nn.Conv2d(8, 8, 3, groups=2), {}, True),
        (nn.Conv2d(8, 8, 3, groups=8), {}, False),
        (nn.Conv2d(8, 16, 3, groups=8), {}, True),
        (nn.Conv2d(8, 8, 3), {"bits": 6}, False),
        (nn.Conv2d(8, 8, 3), {"activation_bits": 32}, False),
        (nn.Linear(8, 8), {}, False),
    ],
    ids=str,
)
def test_the_range_is_reduced_where_a_kernel_adds_products_in_pairs(
    layer: nn.Module, fields: dict[str, Any], is_reduced: bool
) -> None:
    compressed = Compressed(nn.Sequential(layer))
    quantize_(compressed, Quantize.model_validate({"layers": "**", "bits": 8, **fields}))
    assert compressed.quantized["0.weight"].format.reduce_range == is_reduced


def test_a_convolution_of_few_inputs_keeps_eight_bits_and_says_so(compressed: Compressed) -> None:
    (skipped,) = quantize_(compressed, Quantize(layers=("conv", "up"), bits=4))
    assert skipped.startswith("conv: convolutions have fewer than 32 inputs to a channel")
    assert compressed.quantized["conv.weight"].format.bits == 8
    assert compressed.quantized["up.weight"].format.bits == 4


def test_half_the_bits_are_fp16_numbers(compressed: Compressed) -> None:
    before = {name: one.detach().clone() for name, one in compressed.module.named_parameters()}
    quantize_(compressed, Quantize(layers="up", bits=8))
    assert quantize_(compressed, Quantize(layers="**", exclude="down", bits=16)) == []
    assert compressed.halved == {"embedding.weight", "conv.weight", "up.weight"}
    assert compressed.quantized == {}
    for name in ("embedding.weight", "conv.weight"):
        after = compressed.module.get_parameter(name)
        assert torch.equal(after, before[name].half().float())
    assert torch.equal(compressed.module.down.weight, before["down.weight"])
    quantize_(compressed, Quantize(layers="up", bits=4))
    assert "up.weight" not in compressed.halved


def test_what_fp16_cannot_hold_is_its_largest_number(compressed: Compressed) -> None:
    with torch.no_grad():
        compressed.module.up.weight[0, 0] = -1e6
    quantize_(compressed, Quantize(layers="up", bits=16))
    assert compressed.module.up.weight[0, 0].item() == -torch.finfo(torch.float16).max


@pytest.mark.parametrize("bits", [4, 5, 6])
def test_wide_convolutions_are_rounded_to_few_bits(bits: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(48, 6, 1), nn.Conv2d(6, 6, 3, groups=6))
    before = model[0].weight.detach().clone()
    compressed = Compressed(model)
    quantize_(compressed, Quantize(layers="**", bits=bits))
    assert compressed.quantized["0.weight"].format.bits == bits
    assert compressed.quantized["1.weight"].format.bits == 8
    levels = [len(row.unique()) for row in model[0].weight.flatten(1)]
    assert max(levels) <= 2**bits
    error = (model[0].weight - before).square().mean() / before.square().mean()
    assert error < 0.25 * 4.0 ** -(bits - 2)


class Foreign(nn.Module):
    """Weights that no format is for, among layers that have them."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.LSTM(8, 4)
        self.attention = nn.MultiheadAttention(8, 2)
        self.conv = nn.Conv1d(8, 8, 3)
        self.positions = nn.Parameter(torch.zeros(1, 5, 8))


LEFT = {
    "LSTM": "gates.weight_ih_l0 and 1 more",
    "MultiheadAttention": "attention.in_proj_weight",
    "Conv1d": "conv.weight",
    "Foreign": "positions",
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"bits": 8}, {"Foreign", "LSTM", "MultiheadAttention", "Conv1d"}),
        (
            {"bits": 8, "exclude": "gates"},
            {"Foreign", "MultiheadAttention", "Conv1d"},
        ),
        ({"bits": {"attention": 4, "conv": 32, "gates": 32}}, {"Foreign", "MultiheadAttention"}),
        ({"bits": {"attention": 4}, "layers": "attention"}, {"MultiheadAttention"}),
        ({"bits": 32}, set()),
    ],
    ids=["all", "excluded", "32 bits", "a pattern", "32 everywhere"],
)
def test_weights_that_no_format_is_for_are_named(
    fields: dict[str, object], expected: set[str]
) -> None:
    step = Quantize.model_validate({"layers": "**", **fields})
    lines = quantize_(Compressed(Foreign()), step)
    assert set(lines) == {
        f"{LEFT[kind]}: left in fp32, for quantize has no format for what {kind} holds"
        for kind in expected
    }


@pytest.mark.parametrize(
    ("fields", "is_told"),
    [({}, False), ({"rounding": "compensated"}, True), ({"scheme": "affine"}, True),
     ({"granularity": "channel"}, True)],
    ids=["plain", "rounding", "scheme", "granularity"],
)  # fmt: skip
def test_what_says_nothing_of_fp16_is_reported(
    fields: dict[str, str], is_told: bool, compressed: Compressed
) -> None:
    step = {"layers": ("up", "down"), "bits": {"up": 16, "down": 8}, **fields}
    _, lines = layer_formats(compressed.module, Quantize.model_validate(step))
    assert lines == is_told * [
        "up: fp16 numbers have no codes, so rounding, scheme and granularity say nothing of them"
    ]


def test_ranges_are_not_of_layers_that_find_theirs_as_they_run() -> None:
    model = nn.ModuleDict({"a": nn.Conv2d(4, 4, 3), "up": nn.Linear(4, 4), "z": nn.Linear(4, 4)})
    step = Quantize(layers="**", bits={"a": 16, "up": 8, "z": 8}, ranges="mse")
    _, lines = layer_formats(model, step)
    assert lines == [
        "up and 1 more: ranges mse say nothing of them, for only convolutions have ranges that are "
        "known before they run"
    ]
