from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocomp.compress.formats import LayerFormat
from autocomp.targets.onnxruntime.packed import kernel_bits, kernel_codes


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 70),
    bits=st.sampled_from([2, 4, 8]),
    group_size=st.sampled_from([16, 32]),
    seed=st.integers(0, 9),
)
def test_packing_keeps_every_code_and_fills_up_with_zero_points(
    rows: int, columns: int, bits: int, group_size: int, seed: int
) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, (rows, columns), np.uint8)
    packed = kernel_codes(codes, bits, group_size, 2 ** (bits - 1))
    groups = -(-columns // group_size)
    assert packed.shape == (rows, groups, group_size * bits // 8)
    places = np.arange(0, 8, bits, dtype=np.uint8)
    unpacked = (packed[..., None] >> places) & (2**bits - 1)
    unpacked = unpacked.reshape(rows, -1)
    np.testing.assert_array_equal(unpacked[:, :columns], codes)
    assert (unpacked[:, columns:] == 2 ** (bits - 1)).all()


@pytest.mark.parametrize(
    ("bits", "group_size", "stored"),
    [(2, 32, 2), (2, 16, 4), (3, 32, 4), (4, 16, 4), (5, 64, 8), (8, 128, 8), (2, None, 2)],
)
def test_a_width_is_held_by_the_narrowest_kernel(
    bits: int, group_size: int | None, stored: int
) -> None:
    assert kernel_bits(LayerFormat(bits=bits, group_size=group_size), (40, 300)) == stored
