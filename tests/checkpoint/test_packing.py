from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from autocomp.checkpoint.packing import (
    StoredTensor,
    describe,
    halved,
    pack,
    pack_codes,
    restore,
    together,
    unpack,
    unpack_codes,
    unpack_ranges,
)
from autocomp.compress.fixed_point import fix_
from autocomp.compress.formats import Compressed, LayerFormat, quantize_tensor
from autocomp.compress.grids import FixedFormat, fix_tensor
from autocomp.compress.quantize import quantize_
from autocomp.errors import CheckpointError
from autocomp.models.cifar import CIFAR_CLASSIFIERS
from autocomp.models.reshape import tensors
from autocomp.policy import FixedPoint, Quantize

BITS = st.integers(2, 8)


@settings(deadline=None)
@given(st.data(), BITS, st.integers(0, 9), st.integers(1, 70))
def test_codes_of_any_width_and_shape_come_back(data, bits, rows, columns):
    count = rows * columns
    drawn = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count))
    codes = torch.tensor(drawn, dtype=torch.uint8).reshape(rows, columns)
    packed = pack_codes(codes, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-count * bits // 8)
    back = unpack_codes(packed, bits, (rows, columns))
    assert back.dtype == torch.uint8
    assert torch.equal(back, codes)


@pytest.mark.parametrize(
    ("codes", "bits", "packed"),
    [
        ([1, 2], 4, [0x21]),
        ([3, 0, 1, 2], 2, [0b10_01_00_11]),
        ([5, 7, 1], 3, [0b01_111_101, 0b0]),
        ([255, 1], 8, [255, 1]),
    ],
    ids=["4 bits", "2 bits", "3 bits", "8 bits"],
)
def test_the_first_code_lies_lowest(codes, bits, packed):
    assert pack_codes(torch.tensor(codes, dtype=torch.uint8), bits).tolist() == packed


WIDTHS = st.sampled_from([2, 3, 4, 5, 6, 8])
FORMATS = st.builds(
    LayerFormat,
    bits=WIDTHS,
    group_size=st.sampled_from([16, 32]),
    affine=st.booleans(),
    activation_bits=st.sampled_from([8, 32]),
) | st.builds(LayerFormat, bits=WIDTHS, per_tensor=st.booleans(), affine=st.booleans())


@settings(deadline=None)
@given(FORMATS, st.integers(1, 5), st.integers(1, 70), st.integers(0, 99))
def test_a_model_comes_back_bit_for_bit(how, rows, columns, seed):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(columns, rows), nn.BatchNorm1d(rows))
    tensor = quantize_tensor(module[0].weight, how)
    module[0].weight.data = tensor.dequantize()
    compressed = Compressed(module, {"0.weight": tensor})
    values, quantized, _ = unpack(pack(compressed), describe(compressed))
    assert set(values) == {"0.weight", "0.bias", *(f"1.{n}" for n in ("weight", "bias"))} | {
        "1.running_mean",
        "1.running_var",
    }
    for name, value in values.items():
        assert torch.equal(value, module.state_dict()[name])
    assert quantized["0.weight"].format == tensor.format
    assert torch.equal(quantized["0.weight"].codes, tensor.codes)
    assert torch.equal(quantized["0.weight"].scales, tensor.scales)
    if how.affine:
        assert torch.equal(quantized["0.weight"].zeros, tensor.zeros)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(
    "fields",
    [{"group_size": 32}, {"group_size": 128, "affine": True}, {}, {"per_tensor": True}],
    ids=["group", "affine group", "channel", "tensor"],
)
def test_a_file_is_as_large_as_bits_times_weights_and_scales(bits, fields):
    module = nn.Linear(512, 300)
    tensor = quantize_tensor(module.weight, LayerFormat(bits=bits, **fields))
    file = save(pack(Compressed(module, {"weight": tensor})))
    zeros = tensor.scales.numel() * bits / 8 if tensor.format.affine else 0
    expected = 512 * 300 * bits / 8 + 2 * tensor.scales.numel() + zeros + 4 * 300
    assert expected < len(file) < 1.05 * expected


def test_a_format_of_an_older_checkpoint_is_read():
    written = {"shape": [4, 32], "format": {"bits": 4, "group_size": 32, "ranges": None}}
    how = StoredTensor.model_validate(written)
    assert how.model_dump(mode="json") == written
    assert how.stored_bytes == 4 * 32 // 2 + 4 * 2


@settings(deadline=None)
@given(FORMATS, st.integers(1, 5), st.integers(1, 70))
def test_what_a_tensor_takes_is_known_without_packing_it(how, rows, columns):
    module = nn.Linear(columns, rows)
    tensor = quantize_tensor(module.weight, how)
    compressed = Compressed(module, {"weight": tensor})
    packed, stored = pack(compressed), describe(compressed)
    assert stored["weight"].bits == how.bits
    assert stored["weight"].stored_bytes == sum(
        one.nbytes for name, one in packed.items() if name.startswith("weight.")
    )
    assert (stored["bias"].bits, stored["bias"].stored_bytes) == (32, packed["bias"].nbytes)


def test_a_convolution_and_its_ranges_come_back():
    module = nn.Conv2d(3, 4, 3)
    tensor = quantize_tensor(module.weight, LayerFormat(bits=8, ranges="mse"))
    module.weight.data = tensor.dequantize()
    ranges = {"encoder": torch.tensor([[0.0, 6.0], [-1.5, 2.0]])}
    compressed = Compressed(module, {"weight": tensor}, ranges)
    packed = pack(compressed)
    values, quantized, _ = unpack(packed, describe(compressed))
    assert torch.equal(values["weight"], module.weight)
    assert torch.equal(quantized["weight"].codes, tensor.codes)
    assert {name: rows.tolist() for name, rows in unpack_ranges(packed).items()} == {
        "encoder": [[0.0, 6.0], [-1.5, 2.0]]
    }


@pytest.mark.parametrize(
    "rows",
    [torch.zeros(3), torch.zeros(2, 3), torch.tensor([[0.0, float("inf")]])],
    ids=["flat", "wide", "infinite"],
)
def test_ranges_that_are_none_are_refused(rows):
    with pytest.raises(CheckpointError, match=r"ranges\.encoder must hold pairs of finite numbers"):
        unpack_ranges({"ranges.encoder": rows})


def stored_and_packed():
    module = nn.Linear(40, 3)
    tensor = quantize_tensor(module.weight, LayerFormat(bits=4, group_size=16))
    compressed = Compressed(module, {"weight": tensor})
    return describe(compressed), pack(compressed)


def test_packed_weights_take_their_width():
    _, packed = stored_and_packed()
    assert {name: tensor.nbytes for name, tensor in packed.items()} == {
        "weight.codes": 40 * 3 // 2,
        "weight.scales": 3 * 3 * 2,
        "bias": 3 * 4,
    }


@pytest.mark.parametrize(
    ("name", "replacement", "reason"),
    [
        ("weight.codes", torch.zeros(59, dtype=torch.uint8), r"shape \[60\] has \[59\]"),
        ("weight.codes", torch.zeros(61, dtype=torch.uint8), r"shape \[60\] has \[61\]"),
        ("weight.codes", torch.zeros(60), "uint8|ubyte|unsigned byte"),
        ("weight.scales", torch.zeros(1, 3).half(), r"shape \[3, 3\] has \[1, 3\]"),
        ("bias", torch.zeros(1, 3), r"shape \[3\] has \[1, 3\]"),
        ("bias", None, "lacks 'bias'"),
        ("weight.scales", None, "lacks 'weight.scales'"),
    ],
    ids=["short", "long", "floats", "scales", "shape", "no bias", "no scales"],
)
def test_tensors_that_are_not_those_described_are_refused(name, replacement, reason):
    stored, packed = stored_and_packed()
    del packed[name]
    if replacement is not None:
        packed[name] = replacement
    with pytest.raises(CheckpointError, match=reason) as caught:
        unpack(packed, stored)
    assert str(caught.value).startswith("model.safetensors: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", [63, 193])
def test_codes_beyond_a_reduced_range_are_refused(code):
    module = nn.Conv2d(4, 4, 3, bias=False)
    how = LayerFormat(bits=8, ranges="mse", reduce_range=True)
    compressed = Compressed(module, {"weight": quantize_tensor(module.weight, how)})
    stored, packed = describe(compressed), pack(compressed)
    unpack(packed, stored)
    packed["weight.codes"][5] = code
    with pytest.raises(CheckpointError, match="codes beyond its reduced range of 64 to 192"):
        unpack(packed, stored)


@pytest.mark.parametrize("shape", [(), (120,), (3, 0), (0, 3)], ids=str)
def test_codes_without_rows_are_refused(shape):
    stored, _ = stored_and_packed()
    with pytest.raises(ValueError, match="a tensor with codes must have rows"):
        StoredTensor(shape=shape, format=stored["weight"].format)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("part", ["weight.scales", "bias.grid"])
def test_what_codes_are_multiplied_by_must_be_finite(part, value):
    module = nn.Linear(40, 3)
    weight = quantize_tensor(module.weight, LayerFormat(bits=4, group_size=16))
    bias = fix_tensor(module.bias, FixedFormat(method="minmax", bits=8))
    compressed = Compressed(module, {"weight": weight}, fixed={"bias": bias})
    stored, packed = describe(compressed), pack(compressed)
    packed[part].view(-1)[-1] = value
    with pytest.raises(CheckpointError, match=rf"but {part} is not finite$"):
        unpack(packed, stored)


def test_a_negative_length_is_refused():
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        StoredTensor(shape=(-1, 3))


def test_half_precision_takes_two_bytes_a_weight_and_comes_back():
    module = nn.Linear(6, 5)
    module.weight.data = module.weight.data.half().float()
    compressed = Compressed(module, halved={"weight"})
    packed, stored = pack(compressed), describe(compressed)
    assert packed["weight"].dtype == torch.float16
    assert packed["bias"].dtype == torch.float32
    assert halved(stored) == {"weight"}
    values, quantized, _ = unpack(packed, stored)
    assert quantized == {}
    assert values["weight"].dtype == torch.float32
    assert torch.equal(values["weight"], module.weight)


RESNET_FORMATS = {
    **{f"{bits} bits": [Quantize(layers="**", bits=bits)] for bits in (2, 3, 4, 5, 6, 8, 16)},
    "dense": [],
    "affine, weights alone": [
        Quantize(layers="**", bits=2, scheme="affine", granularity="group", activation_bits=32)
    ],
    "fixed point": [FixedPoint(layers="**", bits=4, batch_norm_bits=16, activation_bits=8)],
}


resnet20 = CIFAR_CLASSIFIERS["cifar_resnet20"]


def resnet(steps):
    """ResNet-20 for CIFAR-10, compressed, with as many ranges as its graph has activations."""
    torch.manual_seed(0)
    compressed = Compressed(resnet20(10).eval(), ranges={"net": torch.zeros(40, 2)})
    for step in steps:
        change = quantize_ if isinstance(step, Quantize) else fix_
        change(compressed, step)
    return compressed


@pytest.mark.parametrize("steps", RESNET_FORMATS.values(), ids=RESNET_FORMATS)
def test_a_small_net_takes_little_more_than_its_bits_and_comes_back(steps):
    compressed = resnet(steps)
    stored = describe(compressed)
    file = save(together(pack(compressed), stored))
    expected = sum(one.stored_bytes for one in stored.values())
    assert expected < len(file) < 1.05 * expected
    again = restore(resnet20(10), load(file), stored)
    for name, tensor in tensors(compressed.module).items():
        assert torch.equal(tensors(again.module)[name], tensor), name
    named = pack(compressed)
    assert {name: one.tolist() for name, one in pack(again).items()} == {
        name: one.tolist() for name, one in named.items()
    }
    assert again.results == compressed.results
    assert save(together(pack(again), describe(again))) == file


def test_tensors_that_dwarf_their_names_keep_them():
    compressed = Compressed(nn.Linear(400, 100))
    packed = pack(compressed)
    assert together(packed, describe(compressed)).keys() == {"weight", "bias"}
    small = Compressed(nn.Linear(40, 10))
    assert together(pack(small), describe(small)).keys() == {".floats"}


@pytest.mark.parametrize("change", [-1, 1], ids=["short", "long"])
def test_what_lies_together_must_be_of_its_length(change):
    stored, packed = stored_and_packed()
    joined = together(packed, stored)
    assert set(joined) == {".bytes", ".halves", ".floats"}
    joined[".bytes"] = torch.zeros(60 + change, dtype=torch.uint8)
    with pytest.raises(CheckpointError, match=rf"shape \[60\] has \[{60 + change}\]"):
        unpack(joined, stored)
    del joined[".bytes"]
    with pytest.raises(CheckpointError, match=r"lacks 'weight\.codes'"):
        unpack(joined, stored)


def test_numbers_of_other_types_come_back():
    module = nn.Linear(3, 2)
    module.register_buffer("order", torch.tensor([2, 0, 2**40 + 1]))
    module.register_buffer("angles", torch.tensor([0.1], dtype=torch.float64))
    compressed = Compressed(module)
    stored = describe(compressed)
    joined = together(pack(compressed), stored)
    assert joined["order"].dtype == torch.int64
    other = nn.Linear(3, 2)
    other.register_buffer("order", torch.zeros(3, dtype=torch.long))
    other.register_buffer("angles", torch.zeros(1, dtype=torch.float64))
    restored = restore(other, joined, stored).module
    assert torch.equal(restored.order, module.order)
    assert torch.equal(restored.angles, module.angles)


@pytest.mark.parametrize(("bits", "results"), [(32, None), (6, FixedFormat(method="log", bits=6))])
def test_a_fixed_format_of_an_older_checkpoint_is_read(bits, results):
    fixed = {"method": "log", "bits": 8, "activation_bits": bits, "overflow": 0.0}
    how = StoredTensor.model_validate({"shape": [4], "format": None, "fixed": fixed})
    assert how.fixed == FixedFormat(method="log", bits=8)
    assert how.results == results
