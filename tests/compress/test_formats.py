"""Codes and scales: how far they may lie from the weights they stand for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from autocomp.compress.compensation import compensate
from autocomp.compress.formats import SMALLEST_SCALE, LayerFormat, quantize_tensor

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


@pytest.mark.parametrize("bits", [4, 8])
def test_what_was_rounded_once_is_not_moved_again(bits: int) -> None:
    fmt = LayerFormat(bits=bits, group_size=16)
    weight = torch.randn(4, 40, generator=torch.Generator().manual_seed(0))
    once = quantize_tensor(weight, fmt)
    again = quantize_tensor(once.dequantize(), fmt)
    assert torch.equal(once.codes, again.codes)
    assert torch.equal(once.scales, again.scales)


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


def test_compensated_codes_of_8_bits_are_what_integer_convolutions_hold() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(24, 16, generator=generator) @ torch.randn(16, 16, generator=generator)
    weight = torch.randn(64, 16, generator=generator)
    fmt = LayerFormat(bits=8, ranges="mse", rounding="compensated")
    assert compensate(weight, inputs.T @ inputs, fmt).levels().abs().max() <= 127


@pytest.mark.parametrize("change", [{"bits": 1}, {"bits": 17}, {"group_size": 8}])
def test_formats_have_limits(change: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        LayerFormat(**{"bits": 4, "group_size": 32, **change})
