"""Tensors at their widths: what `model.safetensors` of a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from autocomp.compress.formats import (
    FLOAT_BITS,
    HALF_BITS,
    Compressed,
    LayerFormat,
    QuantizedTensor,
)
from autocomp.compress.grids import FixedFormat, FixedTensor
from autocomp.decisions import Decision, later
from autocomp.errors import CheckpointError
from autocomp.models.reshape import tensors
from autocomp.tensors import TensorRecord, TensorRecords

RANGES = "ranges."
"""What the name of a graph's ranges begins with."""
SCALE_BYTES, GRID_BYTES = 2, 8


class StoredTensor(Decision):
    """How one tensor is stored: its shape, and its format if that is not plain floats."""

    shape: tuple[Annotated[int, Field(ge=0)], ...]
    format: LayerFormat | None = None
    fixed: FixedFormat | None = later(None)

    @property
    def bits(self) -> int:
        """Of one value."""
        how = self.fixed or self.format
        return FLOAT_BITS if how is None else how.bits

    @property
    def stored_bytes(self) -> int:
        """What `pack` makes of the tensor: the codes, their scales and zero points, or floats."""
        codes = -(-math.prod(self.shape) * self.bits // 8)
        if self.fixed is not None:
            return codes + GRID_BYTES
        if self.format is None or self.format.bits == HALF_BITS:
            return codes
        scales = math.prod(self.format.scale_shape(self.shape))
        zeros = -(-scales * self.bits // 8) if self.format.affine else 0
        return codes + SCALE_BYTES * scales + zeros


def describe(compressed: Compressed) -> dict[str, StoredTensor]:
    """Shape and format of every tensor of a compressed model, by name."""
    return {
        name: StoredTensor(
            shape=tuple(tensor.shape),
            format=_format(compressed, name),
            fixed=compressed.fixed[name].format if name in compressed.fixed else None,
        )
        for name, tensor in tensors(compressed.module).items()
    }


def records(
    tensors: Mapping[str, StoredTensor],
    computed_bits: Callable[[Sequence[int], LayerFormat | None], int],
) -> TensorRecords:
    """How tensors are stored, and in how many bits a target computes with each."""
    return TensorRecords(
        tensors=tuple(
            TensorRecord(
                name=name,
                shape=how.shape,
                bits=how.bits,
                bytes=how.stored_bytes,
                computed_bits=computed_bits(how.shape, how.format),
            )
            for name, how in tensors.items()
        )
    )


def pack(compressed: Compressed) -> dict[str, Tensor]:
    """The tensors to store: floats as they are, codes several to a byte with their scales."""
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors(compressed.module).items():
        quantized, fixed = compressed.quantized.get(name), compressed.fixed.get(name)
        if name in compressed.halved:
            packed[name] = tensor.half().contiguous()
        elif fixed is not None:
            packed[f"{name}.codes"] = pack_codes(fixed.codes, fixed.format.bits)
            packed[f"{name}.grid"] = fixed.grid
        elif quantized is None:
            packed[name] = tensor.contiguous().clone()
        else:
            packed[f"{name}.codes"] = pack_codes(quantized.codes, quantized.format.bits)
            packed[f"{name}.scales"] = quantized.scales
            if quantized.zeros is not None:
                packed[f"{name}.zeros"] = pack_codes(quantized.zeros, quantized.format.bits)
    return packed | {f"{RANGES}{graph}": rows for graph, rows in compressed.ranges.items()}


def unpack_ranges(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ranges of rounded activations, (N, 2) a graph."""
    ranges = {
        name.removeprefix(RANGES): tensor
        for name, tensor in packed.items()
        if name.startswith(RANGES)
    }
    for graph, rows in ranges.items():
        if rows.ndim != 2 or rows.shape[1] != 2 or not rows.isfinite().all():
            raise CheckpointError(
                f"model.safetensors: {RANGES}{graph} must hold pairs of finite numbers, "
                "but does not"
            )
    return ranges


def unpack(
    packed: Mapping[str, Tensor], stored: Mapping[str, StoredTensor]
) -> tuple[dict[str, Tensor], dict[str, QuantizedTensor], dict[str, FixedTensor]]:
    """The fp32 values of every tensor, and the codes of those that have them; exact."""
    values: dict[str, Tensor] = {}
    quantized: dict[str, QuantizedTensor] = {}
    fixed: dict[str, FixedTensor] = {}
    try:
        for name, how in stored.items():
            if how.fixed is not None:
                codes = unpack_codes(packed[f"{name}.codes"], how.fixed.bits, how.shape).int()
                fixed[name] = FixedTensor(how.fixed, codes, _shaped(packed[f"{name}.grid"], (2,)))
                values[name] = fixed[name].values()
            elif how.format is None or how.format.bits == HALF_BITS:
                values[name] = _shaped(packed[name], how.shape).float()
            else:
                quantized[name] = _quantized(packed, name, how.shape, how.format)
                values[name] = quantized[name].dequantize()
    except (KeyError, TypeError, ValueError) as failure:
        reason = f"lacks {failure}" if isinstance(failure, KeyError) else failure
        raise CheckpointError(
            f"model.safetensors: must hold the tensors config.json describes, but {reason}"
        ) from None
    return values, quantized, fixed


def halved(stored: Mapping[str, StoredTensor]) -> set[str]:
    """The names of the tensors stored as fp16."""
    return {
        name
        for name, how in stored.items()
        if how.format is not None and how.format.bits == HALF_BITS
    }


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Codes (any shape, below 2^bits) as one stream of bits in bytes, first code lowest."""
    whole = codes.cpu().numpy().astype(_code_type(bits)).reshape(-1, 1).view(np.uint8)
    ones = np.unpackbits(whole, axis=1, count=bits, bitorder="little")  # (N, bits)
    return torch.from_numpy(np.packbits(ones, bitorder="little"))


def unpack_codes(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The codes `pack_codes` packed, in `shape`; `ValueError` for a stream of another length."""
    count = torch.Size(shape).numel()
    stream = _shaped(packed, (-(-count * bits // 8),)).numpy()
    ones = np.unpackbits(stream, count=count * bits, bitorder="little").reshape(count, bits)
    whole = np.packbits(ones, axis=1, bitorder="little").view(_code_type(bits)).reshape(shape)
    return torch.from_numpy(whole.astype(np.uint8 if bits <= 8 else np.int32))


def _code_type(bits: int) -> str:
    return "u1" if bits <= 8 else "<u2"


def _quantized(
    packed: Mapping[str, Tensor], name: str, shape: tuple[int, ...], how: LayerFormat
) -> QuantizedTensor:
    codes = unpack_codes(packed[f"{name}.codes"], how.bits, shape)
    places = how.scale_shape(shape)
    scales = _shaped(packed[f"{name}.scales"], places)
    zeros = unpack_codes(packed[f"{name}.zeros"], how.bits, places) if how.affine else None
    return QuantizedTensor(how, codes, scales, zeros)


def _shaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"one of shape {list(shape)} has {list(tensor.shape)}")
    return tensor


def _format(compressed: Compressed, name: str) -> LayerFormat | None:
    if name in compressed.halved:
        return LayerFormat(bits=HALF_BITS)
    quantized = compressed.quantized.get(name)
    return None if quantized is None else quantized.format
