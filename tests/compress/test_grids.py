"""Fixed point: what each method's grid holds, and how far a value may lie from its point."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocomp.compress.grids import GRIDS, OCTAVES, FixedFormat, decode, fix_tensor, last_level

METHODS = pytest.mark.parametrize("method", GRIDS)


def weights(seed: int, spread: float = 1.0) -> torch.Tensor:
    return torch.randn(7, 30, generator=torch.Generator().manual_seed(seed)) * spread


@METHODS
@settings(max_examples=15)
@given(st.sampled_from([2, 3, 4, 5, 6, 8, 16]), st.integers(0, 999), st.floats(1e-3, 100))
def test_codes_have_their_bits_and_stand_for_the_nearest_point(
    method: str, bits: int, seed: int, spread: float
) -> None:
    x = weights(seed, spread)
    tensor = fix_tensor(x, FixedFormat(method=method, bits=bits))
    assert tensor.codes.shape == x.shape
    assert 0 <= int(tensor.codes.min()) <= int(tensor.codes.max()) < 2**bits
    assert tensor.values().isfinite().all()
    if method in ("linear", "minmax") and bits <= 8:
        points = decode(torch.arange(2**bits), method, bits, tensor.grid)
        nearest = (x - points.view(-1, 1, 1)).abs().amin(0)
        assert ((x - tensor.values()).abs() <= nearest * (1 + 1e-3) + 1e-5 * spread).all()


def test_linear_is_the_published_formula() -> None:
    x, bits = weights(0), 6
    fraction_bits = bits - 1 - math.ceil(math.log2(x.abs().max().item()))
    scale = 2.0**fraction_bits
    expected = (x * scale + 0.5).floor().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) / scale
    tensor = fix_tensor(x, FixedFormat(method="linear", bits=bits))
    torch.testing.assert_close(tensor.values(), expected, rtol=0, atol=0)


def test_minmax_is_the_published_formula() -> None:
    x, most = weights(1), 2**5 - 1
    low, width = x.min(), x.max() - x.min()
    expected = ((x - low) / width * most + 0.5).floor() / most * width + low
    found = fix_tensor(x, FixedFormat(method="minmax", bits=5)).values()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_tanh_has_even_levels_of_the_hyperbolic_tangent() -> None:
    x = weights(2, 0.5)
    found = fix_tensor(x, FixedFormat(method="tanh", bits=8)).values()
    assert (found.tanh() - x.tanh()).abs().max() <= 1 / 255 + 1e-6


def test_log_errs_by_the_same_ratio_wherever_a_value_lies() -> None:
    x = torch.logspace(-3, 0, 200, base=10) * torch.tensor([1.0, -1.0]).repeat(100)
    found = fix_tensor(x, FixedFormat(method="log", bits=8)).values()
    step = OCTAVES / (last_level(8) - 1)
    assert ((found / x).log2().abs() <= step / 2 + 1e-4).all()


@METHODS
def test_zero_stays_zero_but_where_levels_pass_by_it(method: str) -> None:
    x = weights(3)
    x[0] = 0
    found = fix_tensor(x, FixedFormat(method=method, bits=8)).values()[0].abs().max().item()
    assert found <= {"linear": 0.0, "log": 0.0, "minmax": 0.02, "tanh": 0.004}[method]


@pytest.mark.parametrize("shape", [(4,), (1,)], ids=["several", "one"])
@METHODS
def test_a_tensor_of_zeros_stays_one(method: str, shape: tuple[int, ...]) -> None:
    found = fix_tensor(torch.zeros(shape), FixedFormat(method=method, bits=4)).values()
    assert torch.equal(found, torch.zeros(shape))


@pytest.mark.parametrize("value", [0.3, -0.7, 1e-4, 250.0])
@pytest.mark.parametrize("count", [1, 5])
@METHODS
def test_a_constant_keeps_its_value_as_well_as_its_method_can(
    method: str, count: int, value: float
) -> None:
    found = fix_tensor(torch.full((count,), value), FixedFormat(method=method, bits=8)).values()
    if method == "minmax":
        assert found.tolist() == pytest.approx([value] * count)
    elif method == "linear":  # the greatest code is a step short of a power of two
        assert found.tolist() == pytest.approx([value] * count, rel=2.0**-6)
    elif method == "log":
        octaves = OCTAVES / (last_level(8) - 1)
        assert (found / value).log2().abs().max() <= octaves / 2 + 1e-4
    else:
        limit = math.atanh(1 - 1 / 255)
        assert found.tanh().tolist() == pytest.approx(
            [math.tanh(max(-limit, min(value, limit)))] * count, abs=1 / 255
        )


def test_a_fraction_may_lie_beyond_a_linear_grid() -> None:
    x = weights(4)
    x[0, 0] = 1000.0
    errors = [
        (fix_tensor(x, FixedFormat(method="linear", bits=6, overflow=share)).values() - x)[1:].abs()
        for share in (0.0, 0.01)
    ]
    assert errors[1].max() < 0.1 < errors[0].max()


def test_sixteen_linear_bits_are_nearly_lossless() -> None:
    x = weights(5)
    found = fix_tensor(x, FixedFormat(method="linear", bits=16)).values()
    assert (found - x).abs().max() <= 1.01 * 2.0**-14
