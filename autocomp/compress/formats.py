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

from autocomp.compress.grids import FixedFormat, FixedTensor
from autocomp.decisions import Decision, later
from autocomp.rounding import ActivationBits, RangeMethod, Rounding

HALF_BITS, FLOAT_BITS = 16, 32
SMALLEST_SCALE = 2.0**-20
"""fp16 still has every scale from here on to 3 %."""
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Of the scale that cuts nothing: those tried where few bits have to do for many weights."""


class LayerFormat(Decision):
    """How one weight is stored, and in what its layer computes.

    16 `bits` are fp16 numbers. Fewer are codes: weight = (code - zero point) x scale, with an fp16
    scale for every `group_size` inputs of a row, for every row where there is no group size, or for
    the whole tensor if `per_tensor`. The zero point is 2^(bits-1); if `affine`, each scale has one
    of its own. `rounding` is how the codes were chosen. With `activation_bits` 8 activations are
    rounded as well: before a linear layer a scale a group, as it runs; around a convolution over
    ranges, and `ranges` names how those were found. With 32 the layer computes in fp32.
    """

    bits: int = Field(ge=2, le=16)
    group_size: int | None = Field(default=None, ge=16)
    ranges: RangeMethod | None = None
    per_tensor: bool = later(False)
    affine: bool = later(False)
    rounding: Rounding = later("nearest")
    activation_bits: ActivationBits = later(8)

    @property
    def zero_point(self) -> int:
        return int(2 ** (self.bits - 1))

    @property
    def largest_code(self) -> int:
        return int(2**self.bits - 1)

    def groups(self, shape: Sequence[int]) -> tuple[int, int]:
        """How many scales a row of a weight of `shape` has, and inputs to each."""
        columns = math.prod(shape[1:])
        size = self.group_size or columns
        return -(-columns // size), size

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, int]:
        """Of the scales of a weight of `shape`: rows, and scales a row."""
        return (1, 1) if self.per_tensor else (shape[0], self.groups(shape)[0])


@dataclass(frozen=True)
class QuantizedTensor:
    """A weight at its width.

    `codes` has the weight's shape, uint8 in [0, 2^bits); `scales` is (rows, groups) fp16, and so
    are `zeros`, uint8, if the format is affine. Rows are output features (of an embedding: words),
    the rest of the shape, flattened, a row's inputs. One scale for all is (1, 1).
    """

    format: LayerFormat
    codes: Tensor
    scales: Tensor
    zeros: Tensor | None = None

    @property
    def group_size(self) -> int:
        """Inputs to a scale."""
        return self.format.groups(self.codes.shape)[1]

    def levels(self) -> Tensor:
        """The codes less their zero points (rows, inputs), int16."""
        rows = self.codes.flatten(1).short()
        if self.zeros is None:
            return rows - self.format.zero_point
        return rows - self._spread(self.zeros).short()

    def dequantize(self) -> Tensor:
        """The fp32 weights the codes stand for, in the shape of `codes`."""
        return (self.levels().float() * self._spread(self.scales.float())).view(self.codes.shape)

    def _spread(self, values: Tensor) -> Tensor:
        """One value a scale -> one an input."""
        columns = self.codes.flatten(1).shape[1]
        return values.repeat_interleave(min(self.group_size, columns), dim=1)[:, :columns]


@dataclass
class Compressed:
    """A model and the formats of those of its tensors that are not plain fp32.

    `module` always computes with what `quantized` stands for (its parameters hold the dequantised
    values). `quantized` is keyed by the tensor's first name in `module.named_parameters()`, by
    which `halved` names the tensors stored as fp16, and `fixed` keys those in fixed point, buffers
    among them. `results` says how what the layers that multiply by a weight give is rounded to
    fixed point, whatever the weight is stored in. `ranges` holds for each exported graph (N, 2)
    ends of the ranges of its rounded activations, in the graph's order; a target measures them
    when it first lowers the model.
    """

    module: nn.Module
    quantized: dict[str, QuantizedTensor] = field(default_factory=dict)
    ranges: dict[str, Tensor] = field(default_factory=dict)
    halved: set[str] = field(default_factory=set)
    fixed: dict[str, FixedTensor] = field(default_factory=dict)
    results: dict[str, FixedFormat] = field(default_factory=dict)

    @property
    def coded(self) -> set[str]:
        """The tensors that have their codes or are fp16, and must stay as they are."""
        return self.halved | self.quantized.keys() | self.fixed.keys()

    def halve_(self, name: str) -> None:
        """Store a parameter as fp16."""
        self._overwrite(name, half(self.module.get_parameter(name)))
        self.halved.add(name)

    def store_(self, name: str, tensor: QuantizedTensor) -> None:
        """Store a parameter as `tensor`."""
        self._overwrite(name, tensor.dequantize())
        self.quantized[name] = tensor
        if tensor.format.ranges is not None:  # its kernel rounds what it gives
            self.results.pop(name, None)

    def fix_(self, name: str, tensor: FixedTensor) -> None:
        """Store a parameter or buffer as `tensor`."""
        self._overwrite(name, tensor.values())
        self.fixed[name] = tensor

    def _overwrite(self, name: str, values: Tensor) -> None:
        self.quantized.pop(name, None)
        self.halved.discard(name)
        self.fixed.pop(name, None)
        self.module.state_dict()[name].copy_(values)


def half(weight: Tensor) -> Tensor:
    """`weight` as fp16; what fp16 cannot hold is its largest number."""
    largest = torch.finfo(torch.float16).max
    return weight.detach().clamp(-largest, largest).half()


def quantize_tensor(weight: Tensor, fmt: LayerFormat) -> QuantizedTensor:
    """Round `weight` (rows, ...) to the nearest codes of `fmt`."""
    rows = weight.detach().float().flatten(1)
    groups, size = fmt.groups(weight.shape)
    padded = rows.new_zeros(len(rows), groups * size)
    padded[:, : rows.shape[1]] = rows
    blocks = padded.view(1, 1, -1) if fmt.per_tensor else padded.view(len(rows), groups, size)
    scales, zeros = fit(blocks, fmt)
    codes = encode(blocks, scales, zeros, fmt).to(torch.uint8)
    own = codes.view(len(rows), -1)[:, : rows.shape[1]]
    return QuantizedTensor(
        fmt, own.reshape(weight.shape).contiguous(), scales, zeros if fmt.affine else None
    )


def fit(blocks: Tensor, fmt: LayerFormat) -> tuple[Tensor, Tensor]:
    """Scales (fp16) and zero points (uint8), (rows, groups), of weights (rows, groups, size).

    They cut nothing, unless few bits have to do for many weights or weights will be compensated
    for: then they are those of least squared error, which cut the largest weights.
    """
    if fmt.affine:
        low, high = blocks.amin(dim=2).clamp(max=0), blocks.amax(dim=2).clamp(min=0)
        scales = (high - low) / fmt.largest_code
        zeros = (-low / _storable(scales).float()).round().clamp(0, fmt.largest_code)
    else:
        scales = blocks.abs().amax(dim=2) / (fmt.zero_point - 1)
        zeros = torch.full_like(scales, fmt.zero_point)
    is_crowded = fmt.group_size is None or fmt.bits < 4 or fmt.rounding == "compensated"
    if is_crowded and fmt.bits < 8:
        scales = _least_error(blocks, scales, zeros, fmt)
    return _storable(scales), zeros.to(torch.uint8)


def encode(blocks: Tensor, scales: Tensor, zeros: Tensor, fmt: LayerFormat) -> Tensor:
    """The codes nearest to `blocks` (rows, groups, size), as floats."""
    codes = (blocks / scales.float().unsqueeze(2)).round() + zeros.float().unsqueeze(2)
    # integer convolutions are fastest, and exact, with signed codes of at most 127 either way
    lowest = 1 if fmt.bits == 8 and not fmt.affine else 0
    return codes.clamp(lowest, fmt.largest_code)


def _storable(scales: Tensor) -> Tensor:
    """`scales` as fp16; that of a group of zeros, or of next to nothing, is the least there is."""
    fitting = scales.clamp(SMALLEST_SCALE, torch.finfo(torch.float16).max)
    near = fitting.half()
    # where fp16 is coarse the next one up: a smaller scale would cut the largest weights
    is_cut = near.float() * (1 + torch.finfo(torch.float16).eps) < fitting
    return torch.where(is_cut, near + torch.finfo(torch.float16).smallest_normal / 2**10, near)


def _least_error(blocks: Tensor, largest: Tensor, zeros: Tensor, fmt: LayerFormat) -> Tensor:
    """The fraction of the `largest` scales (rows, groups) whose codes come nearest to `blocks`."""
    candidates = torch.stack([_storable(share * largest) for share in SHARES])  # (shares, ...)
    errors = torch.stack(
        [
            ((encode(blocks, one, zeros, fmt) - zeros.unsqueeze(2)) * one.float().unsqueeze(2))
            .sub(blocks)
            .square()
            .sum(dim=2)
            for one in candidates
        ]
    )
    return candidates.gather(0, errors.argmin(dim=0, keepdim=True)).squeeze(0).float()
