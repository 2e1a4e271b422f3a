"""How each tensor of a compressed model is stored: its format and, below 16 bits, its codes.

Lowering, packing, reloading and reports read only this, so they cannot drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from pydantic import model_validator
from torch import Tensor, nn

from autocomp.compress.grids import FixedFormat, FixedTensor
from autocomp.decisions import Decision, later
from autocomp.fields import GroupSize, StoredBits
from autocomp.rounding import ActivationBits, RangeMethod, Rounding

HALF_BITS, FLOAT_BITS = 16, 32
SMALLEST_SCALE = 2.0**-20
"""fp16 still has every scale from here on to 3 %."""
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Of the scale that cuts nothing: those tried where few bits have to do for many weights.

Smaller ones err less in each layer, and cost more in the model: they leave less to restore.
"""
MOST_GROWTH = 1.5
"""Of scales: rows of which next to nothing is left would ask for more than they can use."""
REDUCED_LEVELS = 64
"""Either way: two products of them with 8 unsigned bits add up to less than 16 bits hold."""


class LayerFormat(Decision):
    """How one weight is stored, and in what its layer computes.

    16 `bits` are fp16 numbers. Fewer are codes: weight = (code - zero point) x scale, with an fp16
    scale for every `group_size` inputs of a row, for every row where there is no group size, or for
    the whole tensor if `per_tensor`. The zero point is 2^(bits-1); if `affine`, each scale has one
    of its own. `rounding` is how the codes were chosen. With `activation_bits` 8 activations are
    rounded as well: before a linear layer a scale a group, as it runs; around a convolution over
    ranges, and `ranges` names how those were found. With 32 the layer computes in fp32. With
    `reduce_range` codes of 8 bits lie no more than `REDUCED_LEVELS` from the zero point: x86
    without VNNI adds the products of convolutions in pairs, and cuts what 16 bits do not hold.
    """

    bits: StoredBits
    group_size: GroupSize | None = None
    ranges: RangeMethod | None = None
    per_tensor: bool = later(False)
    affine: bool = later(False)
    rounding: Rounding = later("nearest")
    activation_bits: ActivationBits = later(8)
    reduce_range: bool = later(False)

    @model_validator(mode="after")
    def _reduces_whole_bytes(self) -> LayerFormat:
        if self.reduce_range and (self.bits != 8 or self.affine):
            raise ValueError(
                "reduce_range: must be false unless bits is 8 and affine is false, "
                f"but got bits {self.bits}, affine {str(self.affine).lower()}"
            )
        return self

    @model_validator(mode="after")
    def _shares_scales_in_one_way(self) -> LayerFormat:
        if self.per_tensor and self.group_size is not None:
            raise ValueError(
                "group_size: must be left out where per_tensor gives all weights one scale, "
                f"but got {self.group_size}"
            )
        return self

    @property
    def zero_point(self) -> int:
        return int(2 ** (self.bits - 1))

    @property
    def code_range(self) -> tuple[int, int]:
        """The least and the greatest code."""
        if self.reduce_range:
            return self.zero_point - REDUCED_LEVELS, self.zero_point + REDUCED_LEVELS
        # kernels that compute in 8 bits are fastest with as many codes below zero as above
        return int(self.bits == 8 and not self.affine), int(2**self.bits - 1)

    def fits(self, other: LayerFormat) -> bool:
        """Whether codes of this format are codes of `other` as well."""
        own, wanted = (
            (one.bits, one.group_size, one.per_tensor, one.affine) for one in (self, other)
        )
        return own == wanted and self.reduce_range >= other.reduce_range

    @property
    def cuts(self) -> bool:
        """Whether scales may cut the largest weights: few bits have to do for many of them."""
        is_crowded = self.group_size is None or self.bits < 4 or self.rounding == "compensated"
        return self.bits < 8 and is_crowded

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
    """Round `weight` (rows, ...) to the nearest codes of `fmt`, with scales of least error."""
    rows = weight.detach().float().flatten(1)
    groups, size = fmt.groups(weight.shape)
    padded = rows.new_zeros(len(rows), groups * size)
    padded[:, : rows.shape[1]] = rows
    blocks = padded.view(1, 1, -1) if fmt.per_tensor else padded.view(len(rows), groups, size)
    scales, zeros = _least_error(blocks, *candidates(blocks, fmt), fmt)
    codes = encode(blocks, scales[..., None], zeros[..., None], fmt)
    own = codes.view(len(rows), -1)[:, : rows.shape[1]]
    return QuantizedTensor(
        fmt, own.reshape(weight.shape).contiguous(), scales, zeros if fmt.affine else None
    )


def candidates(blocks: Tensor, fmt: LayerFormat) -> tuple[Tensor, Tensor]:
    """Scales (fp16) and zero points (uint8) to choose from for weights (rows, groups, size).

    Both are (choices, rows, groups). Unless the format `cuts` there is one choice, that of weights
    none of which is cut.
    """
    smallest, largest = fmt.code_range
    if fmt.affine:
        low, high = blocks.amin(dim=2).clamp(max=0), blocks.amax(dim=2).clamp(min=0)
        widest = (high - low) / largest
        middle = -low / _storable(widest).float()
        # of 2 bits the second nearest code for zero is often the better one
        codes = torch.stack([middle.round(), middle.round() + (middle - middle.round()).sign()])
    else:
        widest = blocks.abs().amax(dim=2) / (largest - fmt.zero_point)
        codes = torch.full_like(widest, fmt.zero_point)[None]
    zeros = codes.clamp(smallest, largest).to(torch.uint8)
    if not fmt.cuts:
        return _storable(widest)[None], zeros[:1]
    scales = torch.stack([_storable(share * widest) for share in SHARES for _ in zeros])
    return scales, zeros.repeat(len(SHARES), 1, 1)


def encode(weights: Tensor, scales: Tensor, zeros: Tensor, fmt: LayerFormat) -> Tensor:
    """The codes (uint8) nearest to `weights`, of whose shape `scales` and `zeros` are or become."""
    codes = (weights / scales.float()).round() + zeros.float()
    return codes.clamp(*fmt.code_range).to(torch.uint8)


def _storable(scales: Tensor) -> Tensor:
    """`scales` as fp16; that of a group of zeros, or of next to nothing, is the least there is."""
    fitting = scales.clamp(SMALLEST_SCALE, torch.finfo(torch.float16).max)
    near = fitting.half()
    # where fp16 is coarse the next one up: a smaller scale would cut the largest weights
    is_cut = near.float() * (1 + torch.finfo(torch.float16).eps) < fitting
    return torch.where(is_cut, near + torch.finfo(torch.float16).smallest_normal / 2**10, near)


def _least_error(
    blocks: Tensor, scales: Tensor, zeros: Tensor, fmt: LayerFormat
) -> tuple[Tensor, Tensor]:
    """Of the `candidates`, the scales and zero points whose codes come nearest to `blocks`."""
    errors = []
    for scale, zero in zip(scales[..., None], zeros[..., None], strict=True):
        levels = encode(blocks, scale, zero, fmt).float() - zero.float()
        errors.append((levels * scale.float() - blocks).square().sum(dim=2))
    best = torch.stack(errors).argmin(dim=0, keepdim=True)
    return scales.gather(0, best)[0], zeros.gather(0, best)[0]


def with_gain(
    tensor: QuantizedTensor, weight: Tensor, hessian: Tensor | None = None
) -> QuantizedTensor:
    """`tensor` with scales by which what its layer computes neither grows nor shrinks on the whole.

    What errs least is too small, as any least-squares fit is: a few percent a layer, which multiply
    over the layers of a model. So the scales of a row are divided by its gain: the slope of what it
    computes over what `weight` does, of inputs whose x x^T add up to `hessian`, or of independent
    ones of one size (as 1810.05723 does). A format that does not cut keeps its scales.
    """
    if not tensor.format.cuts:
        return tensor
    rows, values = weight.detach().float().flatten(1), tensor.dequantize().flatten(1)
    weighed = rows if hessian is None else rows @ hessian  # (rows, K)
    whole, kept = ((weighed * one).sum(dim=1, keepdim=True) for one in (rows, values))
    if tensor.format.per_tensor:
        whole, kept = whole.sum(dim=0, keepdim=True), kept.sum(dim=0, keepdim=True)
    growth = torch.where(kept > 0, whole / kept, 1.0).clamp(1 / MOST_GROWTH, MOST_GROWTH)
    return replace(tensor, scales=_storable(tensor.scales.float() * growth))
