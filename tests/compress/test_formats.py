"""Codes and scales: how far they may lie from the weights they stand for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from autocomp.compress.compensation import compensate
from autocomp.compress.formats import (
    SMALLEST_SCALE,
    LayerFormat,
    QuantizedTensor,
    quantize_tensor,
    with_gain,
)
from autocomp.rounding import Rounding

FP16 = torch.finfo(torch.float16)


@settings(deadline=None, max_examples=60)
@given(
    bits=st.sampled_from([4, 8]),
    group_size=st.sampled_from([16, 32]),
    rows=st.integers(1, 4),
    columns=st.integers(1, 70),
    spread=st.floats(1e-3, 100),
    seed=st.integers(0, 1000),
)
def test_no_weight_moves_by_more_than_half_a_scale(
    bits: int, group_size: int, rows: int, columns: int, spread: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * spread
    quantized = quantize_tensor(weight, LayerFormat(bits=bits, group_size=group_size))
    groups = -(-columns // group_size)
    assert quantized.codes.shape == weight.shape
    assert quantized.scales.shape == (rows, groups)
    assert int(quantized.codes.max()) < 2**bits
    scales = quantized.scales.float().repeat_interleave(group_size, 1)[:, :columns]
    # the largest weight of a group may lie beyond its last code by the rounding of the scale
    bound = scales * (0.5 + 2 ** (bits - 1) * 2.0**-10)
    assert ((quantized.dequantize() - weight).abs() <= bound).all()


def test_a_group_has_a_scale_of_its_own() -> None:
    weight = torch.tensor([[7.0] * 16 + [0.7] * 16 + [0.07] * 3])
    quantized = quantize_tensor(weight, LayerFormat(bits=4, group_size=16))
    assert quantized.scales.tolist()[0] == pytest.approx([1, 0.1, 0.01], rel=1e-3)
    assert quantized.codes.unique().tolist() == [15]
    torch.testing.assert_close(quantized.dequantize(), weight, rtol=1e-3, atol=0)


@pytest.mark.parametrize("bits", [4, 8])
def test_zero_and_symmetry_are_exact(bits: int) -> None:
    fmt = LayerFormat(bits=bits, group_size=16)
    weight = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    weight[:, ::3] = 0
    values = quantize_tensor(weight, fmt).dequantize()
    assert (values[:, ::3] == 0).all()
    assert torch.equal(quantize_tensor(-weight, fmt).dequantize(), -values)


FEW_BITS: dict[str, dict[str, Any]] = {
    "2 bits in groups": {"bits": 2, "group_size": 16},
    "3 bits, affine": {"bits": 3, "affine": True},
    "4 bits a channel": {"bits": 4},
    "3 bits a tensor": {"bits": 3, "per_tensor": True},
}


@pytest.mark.parametrize("fields", FEW_BITS.values(), ids=FEW_BITS)
@pytest.mark.parametrize("has_inputs", [False, True], ids=["alone", "by inputs"])
def test_what_layers_compute_neither_grows_nor_shrinks(
    fields: dict[str, Any], has_inputs: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 64, generator=generator)
    x = torch.randn(200, 64, generator=generator) * torch.rand(64, generator=generator)
    hessian = x.T @ x if has_inputs else torch.eye(64)

    def gain(values: Tensor) -> Tensor:
        """The slope of what each row computes, or all rows do, over what it did."""
        products = [((weight @ hessian) * one).sum(dim=1) for one in (values, weight)]
        if fields.get("per_tensor"):
            products = [one.sum() for one in products]
        return products[0] / products[1]

    rounded = quantize_tensor(weight, LayerFormat(**fields))
    before = gain(rounded.dequantize())
    assert (before - 1).abs().max() > 2e-3
    grown = with_gain(rounded, weight, hessian if has_inputs else None)
    found = gain(grown.dequantize())
    torch.testing.assert_close(found, torch.ones_like(found), rtol=1e-3, atol=0)
    assert torch.equal(grown.codes, rounded.codes)


@pytest.mark.parametrize("fields", [{"bits": 8}, {"bits": 4, "group_size": 16}], ids=str)
def test_where_nothing_is_cut_scales_are_as_they_were(fields: dict[str, Any]) -> None:
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    rounded = quantize_tensor(weight, LayerFormat(**fields))
    assert with_gain(rounded, weight) is rounded


def test_rows_that_come_to_nothing_keep_scales_that_can_be_stored() -> None:
    fmt = LayerFormat(bits=2)
    weight = torch.zeros(2, 32)
    weight[1, 0] = 1
    nothing = QuantizedTensor(fmt, torch.full((2, 32), 2, dtype=torch.uint8), torch.ones(2, 1))
    grown = with_gain(nothing, weight)
    assert (grown.scales == 1).all()  # there is no gain to tell
    assert (grown.dequantize() == 0).all()


@pytest.mark.parametrize("value", [0.0, 1e-12, 1e30], ids=["zero", "tiny", "huge"])
def test_scales_stay_within_fp16(value: float) -> None:
    quantized = quantize_tensor(torch.full((1, 16), value), LayerFormat(bits=8, group_size=16))
    assert SMALLEST_SCALE <= quantized.scales.item() <= FP16.max
    assert quantized.dequantize().isfinite().all()


@pytest.mark.parametrize("size", [1.0, 1e-3, 2e-4], ids=str)
def test_small_weights_have_as_many_levels_as_large_ones(size: float) -> None:
    weight = size * torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    quantized = quantize_tensor(weight, LayerFormat(bits=8, group_size=64))
    error = (quantized.dequantize() - weight).norm() / weight.norm()
    assert error < 0.01
    assert quantized.levels().abs().amax(dim=1).min() >= 124


@pytest.mark.parametrize("rounding", ["nearest", "compensated"])
def test_codes_of_a_reduced_range_reach_its_ends_and_no_further(rounding: Rounding) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(24, 16, generator=generator) @ torch.randn(16, 16, generator=generator)
    weight = torch.randn(64, 16, generator=generator)
    fmt = LayerFormat(bits=8, ranges="mse", rounding=rounding, reduce_range=True)
    rounded = quantize_tensor(weight, fmt)
    if rounding == "compensated":
        rounded = compensate(weight, inputs.T @ inputs, fmt)
    assert rounded.levels().abs().max() == 64


@pytest.mark.parametrize("change", [{"bits": 6}, {"affine": True}], ids=str)
def test_only_symmetric_whole_bytes_have_a_range_to_reduce(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="reduce_range: must be false unless bits is 8"):
        LayerFormat(**{"bits": 8, "ranges": "mse", "reduce_range": True, **change})


@pytest.mark.parametrize(
    "change",
    [{"bits": bits} for bits in (1, 7, 9, 15, 32)]
    + [{"group_size": size} for size in (8, 17, 256)],
    ids=str,
)
def test_formats_are_those_that_kernels_and_files_have(change: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=r"must be one of|should be 16, 32, 64 or 128"):
        LayerFormat(**{"bits": 4, "group_size": 32, **change})


def test_a_scale_for_all_leaves_none_for_groups() -> None:
    with pytest.raises(ValidationError, match=r"group_size: must be left out .* but got 32"):
        LayerFormat(bits=4, group_size=32, per_tensor=True)
