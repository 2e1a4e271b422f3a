"""How each tensor of a compressed model is stored: its format and, below 16 bits, its codes.

Lowering, packing, reloading and reports read only this, so they cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from pydantic import Field
from torch import Tensor, nn

from autocomp.decisions import Decision


class LayerFormat(Decision):
    """Width of one weight matrix: `bits` a weight, one fp16 scale every `group_size` inputs.

    Codes are unsigned around the zero point 2^(bits-1): weight = (code - zero_point) x scale.
    """

    bits: int = Field(ge=2, le=8)
    group_size: int = Field(ge=16)

    @property
    def zero_point(self) -> int:
        return int(2 ** (self.bits - 1))


@dataclass(frozen=True)
class QuantizedTensor:
    """A weight matrix at its width.

    `codes` is (rows, columns) uint8 in [0, 2^bits); `scales` is (rows, ceil(columns/group_size))
    fp16. Rows are output features (of an embedding: words), columns inputs.
    """

    format: LayerFormat
    codes: Tensor
    scales: Tensor

    def dequantize(self) -> Tensor:
        """The fp32 weights the codes stand for, (rows, columns)."""
        columns = self.codes.shape[1]
        scales = self.scales.float().repeat_interleave(self.format.group_size, dim=1)[:, :columns]
        return (self.codes.float() - self.format.zero_point) * scales


@dataclass
class Compressed:
    """A model and the formats of those of its tensors that are not plain fp32.

    `module` always computes with what `quantized` stands for (its parameters hold the dequantised
    values). `quantized` is keyed by the tensor's first name in `module.named_parameters()`.
    """

    module: nn.Module
    quantized: dict[str, QuantizedTensor] = field(default_factory=dict)


def quantize_tensor(weight: Tensor, fmt: LayerFormat) -> QuantizedTensor:
    """Round `weight` (rows, columns) to the nearest codes of `fmt`, symmetric about zero."""
    rows, columns = weight.shape
    groups = -(-columns // fmt.group_size)
    padded = torch.zeros(rows, groups * fmt.group_size)
    padded[:, :columns] = weight.detach().float()
    blocks = padded.view(rows, groups, fmt.group_size)
    scales = (blocks.abs().amax(dim=2) / (fmt.zero_point - 1)).half()  # (rows, groups)
    # a group of zeros, or one too small for fp16, gets the smallest scale that divides
    fp16 = torch.finfo(torch.float16)
    scales = scales.clamp(fp16.tiny, fp16.max)
    codes = (blocks / scales.float().unsqueeze(2)).round() + fmt.zero_point
    codes = codes.clamp(0, 2 * fmt.zero_point - 1).to(torch.uint8)
    return QuantizedTensor(fmt, codes.view(rows, -1)[:, :columns].contiguous(), scales)
