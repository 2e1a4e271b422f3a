"""How each tensor of a compressed model is stored: its format and, below 16 bits, its codes.

Lowering, packing, reloading and reports read only this, so they cannot drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from pydantic import Field
from torch import Tensor, nn

from autocomp.decisions import Decision
from autocomp.policy import RangeMethod

HALF_BITS = 16
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Of the scale that cuts nothing: those tried where few bits have to do for a whole row."""


class LayerFormat(Decision):
    """Width of one weight: `bits` each, one fp16 scale every `group_size` inputs of a row.

    16 bits are fp16 numbers. Below, codes are unsigned around the zero point 2^(bits-1):
    weight = (code - zero_point) x scale. With no `group_size` a row has one scale. `ranges` is set
    where activations are rounded to 8 bits as well, and names how their ranges are found.
    """

    bits: int = Field(ge=2, le=16)
    group_size: int | None = Field(default=None, ge=16)
    ranges: RangeMethod | None = None

    @property
    def zero_point(self) -> int:
        return int(2 ** (self.bits - 1))

    def groups(self, shape: Sequence[int]) -> tuple[int, int]:
        """How many scales a weight of `shape` has a row, and inputs to each."""
        columns = math.prod(shape[1:])
        size = self.group_size or columns
        return -(-columns // size), size


@dataclass(frozen=True)
class QuantizedTensor:
    """A weight at its width.

    `codes` has the weight's shape, uint8 in [0, 2^bits); `scales` is (rows, groups) fp16. Rows are
    output features (of an embedding: words), the rest of the shape, flattened, a row's inputs.
    """

    format: LayerFormat
    codes: Tensor
    scales: Tensor

    @property
    def group_size(self) -> int:
        """Inputs to a scale."""
        return self.format.groups(self.codes.shape)[1]

    def dequantize(self) -> Tensor:
        """The fp32 weights the codes stand for, in the shape of `codes`."""
        rows = self.codes.flatten(1).float()
        scales = self.scales.float().repeat_interleave(self.group_size, dim=1)[:, : rows.shape[1]]
        return ((rows - self.format.zero_point) * scales).view(self.codes.shape)


@dataclass
class Compressed:
    """A model and the formats of those of its tensors that are not plain fp32.

    `module` always computes with what `quantized` stands for (its parameters hold the dequantised
    values). `quantized` is keyed by the tensor's first name in `module.named_parameters()`, by
    which `halved` names the tensors stored as fp16. `ranges` holds for each exported graph (N, 2)
    ends of the ranges of its rounded activations, in the graph's order; a target measures them
    when it first lowers the model.
    """

    module: nn.Module
    quantized: dict[str, QuantizedTensor] = field(default_factory=dict)
    ranges: dict[str, Tensor] = field(default_factory=dict)
    halved: set[str] = field(default_factory=set)

    @property
    def rounds_activations(self) -> bool:
        return any(tensor.format.ranges is not None for tensor in self.quantized.values())


def quantize_tensor(weight: Tensor, fmt: LayerFormat) -> QuantizedTensor:
    """Round `weight` (rows, ...) to the nearest codes of `fmt`, symmetric about zero.

    Where a row of few bits has one scale, it is the one of least squared error, which cuts the
    row's largest weights.
    """
    groups, size = fmt.groups(weight.shape)
    rows = weight.detach().float().flatten(1)
    padded = torch.zeros(len(rows), groups * size)
    padded[:, : rows.shape[1]] = rows
    blocks = padded.view(len(rows), groups, size)
    scales = blocks.abs().amax(dim=2) / (fmt.zero_point - 1)  # (rows, groups)
    if fmt.group_size is None and fmt.bits < 8:
        scales = _least_error(blocks, scales, fmt)
    scales = _storable(scales)
    codes = _codes(blocks, scales, fmt).to(torch.uint8)
    own = codes.view(len(rows), -1)[:, : rows.shape[1]]
    return QuantizedTensor(fmt, own.reshape(weight.shape).contiguous(), scales)


def _storable(scales: Tensor) -> Tensor:
    """`scales` as fp16; a group of zeros, or too small for fp16, gets the least that divides."""
    fp16 = torch.finfo(torch.float16)
    return scales.half().clamp(fp16.tiny, fp16.max)


def _codes(blocks: Tensor, scales: Tensor, fmt: LayerFormat) -> Tensor:
    """The codes nearest to `blocks` (rows, groups, size), as floats."""
    codes = (blocks / scales.float().unsqueeze(2)).round() + fmt.zero_point
    return codes.clamp(0, 2 * fmt.zero_point - 1)


def _least_error(blocks: Tensor, largest: Tensor, fmt: LayerFormat) -> Tensor:
    """The fraction of the `largest` scales (rows, groups) whose codes come nearest to `blocks`."""
    candidates = torch.stack([_storable(share * largest) for share in SHARES])  # (shares, ...)
    errors = torch.stack(
        [
            ((_codes(blocks, one, fmt) - fmt.zero_point) * one.float().unsqueeze(2) - blocks)
            .square()
            .sum(dim=2)
            for one in candidates
        ]
    )
    return candidates.gather(0, errors.argmin(dim=0, keepdim=True)).squeeze(0).float()
