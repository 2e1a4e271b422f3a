"""Fixed point: values on an even grid, of themselves or of what a function makes of them.

`linear` is that of "Fixed Point Quantization of Deep Convolutional Networks" (1511.06393), `log`
that of "Convolutional Neural Networks using Logarithmic Data Representation" (1603.01025).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from autocomp.decisions import Decision
from autocomp.fields import StoredBits
from autocomp.rounding import FixedMethod

OCTAVES = 16
"""How far below the greatest the least number but zero lies with `log`, if bits allow."""
Grid = tuple[float, float]
"""Where code 0 lies, and the distance from each code to the next."""


class FixedFormat(Decision):
    """How values are held: each in `bits` by `method`.

    The fraction `overflow` of them may lie beyond a linear grid.
    """

    method: FixedMethod
    bits: StoredBits
    overflow: float = Field(default=0.0, ge=0, lt=1)


@dataclass(frozen=True)
class FixedTensor:
    """A tensor in fixed point: `codes` in its shape, int32 in [0, 2^bits), and `grid` (2,) fp32."""

    format: FixedFormat
    codes: Tensor
    grid: Tensor

    def values(self) -> Tensor:
        """The fp32 values the codes stand for."""
        return decode(self.codes, self.format.method, self.format.bits, self.grid)


def _linear(low: float, high: float, bits: int) -> Grid:
    whole = math.ceil(math.log2(max(-low, high)))
    step = 2.0 ** (whole - (bits - 1))
    return -step * 2 ** (bits - 1), step


def _minmax(low: float, high: float, bits: int) -> Grid:
    return low, (high - low) / (2**bits - 1)


def _log(low: float, high: float, bits: int) -> Grid:
    levels = last_level(bits)
    top = math.log2(max(-low, high))
    step = min(OCTAVES, max(levels - 1, 1)) / max(levels - 1, 1)
    return top - levels * step, step


def _tanh(low: float, high: float, bits: int) -> Grid:
    return -1.0, 2 / (2**bits - 1)


GRIDS: dict[str, Callable[[float, float, int], Grid]] = {
    "linear": _linear,
    "minmax": _minmax,
    "log": _log,
    "tanh": _tanh,
}
"""Method -> the grid of values from low to high, which differ."""


def grid_of(method: str, low: float, high: float, bits: int) -> Grid:
    """The grid of values from `low` to `high`; one that is all there is has code 0."""
    return GRIDS[method](low, high, bits) if low < high else (low, 1.0)


def last_level(bits: int) -> int:
    """The greatest magnitude's code with `log`; 0 is zero, and the highest bit the sign."""
    return int(2 ** (bits - 1) - 1)


def fix_tensor(x: Tensor, how: FixedFormat) -> FixedTensor:
    """Round `x` to the nearest points of its grid."""
    x = x.detach().float().cpu()
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    if how.method == "minmax":
        low, high = x.min().item(), x.max().item()
    if how.overflow:
        bound = x.abs().flatten().sort().values[-1 - int(how.overflow * (x.numel() - 1))].item()
        if bound > 0:  # else nothing but zeros is left, and everything would be cut to them
            low, high = max(low, -bound), min(high, bound)
    grid = torch.tensor(grid_of(how.method, low, high, how.bits))
    return FixedTensor(how, encode(x, how.method, how.bits, grid), grid)


def encode(x: Tensor, method: str, bits: int, grid: Tensor) -> Tensor:
    """The codes (int32) of the points nearest to `x`; halves go up."""
    if method == "log":
        level = _nearest(x.abs().log2(), grid, last_level(bits))
        codes: Tensor = level + (x < 0) * 2 ** (bits - 1)
        return codes.int()
    return _nearest(x.tanh() if method == "tanh" else x, grid, 2**bits - 1).int()


def _nearest(points: Tensor, grid: Tensor, most: int) -> Tensor:
    return ((points - grid[0]) / grid[1] + 0.5).floor().clamp(0, most)


def decode(codes: Tensor, method: str, bits: int, grid: Tensor) -> Tensor:
    """The fp32 values of codes."""
    if method == "log":
        is_negative = (codes >= 2 ** (bits - 1)).int()
        level = codes - is_negative * 2 ** (bits - 1)
        size: Tensor = torch.exp2(level * grid[1] + grid[0]) * level.clamp(max=1)
        sign: Tensor = 1 - 2 * is_negative
        return size * sign
    points: Tensor = codes * grid[1] + grid[0]
    if method != "tanh":
        return points
    # the outermost codes would be infinite: they stand for half a step less
    most = float(1 - grid[1] / 2)
    return points.clamp(-most, most).atanh()
