"""Tensors at their widths: what `model.safetensors` of a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

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
from autocomp.models.reshape import reshape_, tensors
from autocomp.tensors import TensorRecord, TensorRecords

RANGES = "ranges."
"""What the name of a graph's ranges begins with."""
TOGETHER = {torch.uint8: ".bytes", torch.float16: ".halves", torch.float32: ".floats"}
"""Where tensors of a type lie together. No module's tensor has a name that begins with a dot."""
MOST_NAMES = 0.02
"""Of the bytes of the tensors: what their names may take in the file."""
NAME_BYTES = 70
"""What safetensors writes of a tensor beside its name."""
Part = tuple[torch.dtype, tuple[int, ...]]
"""Type and shape."""


class StoredTensor(Decision):
    """How one tensor is stored: its shape, and its format if that is not plain floats.

    `results` is how what the layers that multiply by it give is rounded. The target computes with
    it in `computed_bits`; plain floats, and older checkpoints, do not say.
    """

    shape: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=8)]
    format: LayerFormat | None = None
    fixed: FixedFormat | None = later(None)
    results: FixedFormat | None = later(None)
    computed_bits: int | None = later(None)

    @model_validator(mode="before")
    @classmethod
    def _read_older(cls, value: Any) -> Any:
        """The bits of results were a part of the weight's format."""
        fixed = value.get("fixed") if isinstance(value, dict) else None
        if not isinstance(fixed, dict) or "activation_bits" not in fixed:
            return value
        own = {key: one for key, one in fixed.items() if key != "activation_bits"}
        results = own | {"bits": fixed["activation_bits"]}
        is_rounded = results["bits"] != FLOAT_BITS
        return value | {"fixed": own} | ({"results": results} if is_rounded else {})

    @model_validator(mode="after")
    def _has_rows(self) -> StoredTensor:
        has_rows = len(self.shape) > 1 and 0 not in self.shape
        if self.format is not None and self.format.bits < HALF_BITS and not has_rows:
            raise ValueError(
                f"a tensor with codes must have rows of weights, but its shape is {self.shape}"
            )
        return self

    @property
    def bits(self) -> int:
        """Of one value."""
        how = self.fixed or self.format
        return FLOAT_BITS if how is None else how.bits

    @property
    def stored_bytes(self) -> int:
        """What `pack` makes of the tensor: the codes, their scales and zero points, or floats."""
        return sum(math.prod(shape) * kind.itemsize for kind, shape in self.parts("").values())

    def parts(self, name: str) -> dict[str, Part]:
        """What `pack` makes of a tensor of floats called `name`."""
        codes = torch.uint8, (_code_bytes(math.prod(self.shape), self.bits),)
        if self.fixed is not None:
            return {f"{name}.codes": codes, f"{name}.grid": (torch.float32, (2,))}
        if self.format is None:
            return {name: (torch.float32, self.shape)}
        if self.format.bits == HALF_BITS:
            return {name: (torch.float16, self.shape)}
        places = self.format.scale_shape(self.shape)
        own = {f"{name}.codes": codes, f"{name}.scales": (torch.float16, places)}
        if not self.format.affine:
            return own
        zeros = torch.uint8, (_code_bytes(math.prod(places), self.bits),)
        return own | {f"{name}.zeros": zeros}


def describe(
    compressed: Compressed, computed_bits: Mapping[str, int] | None = None
) -> dict[str, StoredTensor]:
    """How every tensor of a compressed model is stored, and computed if that is known, by name."""
    computed_bits = computed_bits or {}
    return {
        name: StoredTensor(
            shape=tuple(tensor.shape),
            format=_format(compressed, name),
            fixed=compressed.fixed[name].format if name in compressed.fixed else None,
            results=compressed.results.get(name),
            computed_bits=computed_bits.get(name),
        )
        for name, tensor in tensors(compressed.module).items()
    }


def records(tensors: Mapping[str, StoredTensor]) -> TensorRecords:
    """How tensors are stored, and in how many bits the target computes with each."""
    return TensorRecords(
        tensors=tuple(
            TensorRecord(
                name=name,
                shape=how.shape,
                bits=how.bits,
                bytes=how.stored_bytes,
                computed_bits=how.bits if how.bits == FLOAT_BITS else how.computed_bits,
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


def together(packed: Mapping[str, Tensor], stored: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """What `pack` gave, joined by type if names would take much of a file; `unpack` reads either.

    ResNet-20 in 2 bits would be an eighth names.
    """
    names = sum(len(name) + NAME_BYTES for name in packed)
    if names <= MOST_NAMES * sum(one.stored_bytes for one in stored.values()):
        return dict(packed)
    joined: dict[torch.dtype, list[Tensor]] = {}
    left = dict(packed)
    for part, (kind, _) in _parts(stored).items():
        if packed[part].dtype == kind:
            joined.setdefault(kind, []).append(left.pop(part).flatten())
    return left | {TOGETHER[kind]: torch.cat(tensors) for kind, tensors in joined.items()}


def _parts(stored: Mapping[str, StoredTensor]) -> dict[str, Part]:
    return {part: how for name, one in stored.items() for part, how in one.parts(name).items()}


def _apart(packed: Mapping[str, Tensor], stored: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """What `pack` gave; `ValueError` if what lies together is not of the length of its parts."""
    apart = dict(packed)
    for kind, name in TOGETHER.items():
        if name in packed:
            parts = {
                part: shape
                for part, (own, shape) in _parts(stored).items()
                if own == kind and part not in packed
            }
            sizes = [math.prod(shape) for shape in parts.values()]
            pieces = _shaped(packed[name], (sum(sizes),)).split(sizes)
            for (part, shape), piece in zip(parts.items(), pieces, strict=True):
                apart[part] = piece.clone().view(shape)
    return apart


def restore(
    module: nn.Module, packed: Mapping[str, Tensor], stored: Mapping[str, StoredTensor]
) -> Compressed:
    """The model that was packed, exactly; `module`, a dense one, takes its shapes and weights."""
    values, quantized, fixed = unpack(packed, stored)  # shapes are checked before they take memory
    reshape_(module, {name: how.shape for name, how in stored.items()})
    module.load_state_dict(values, strict=False)
    return Compressed(
        module.eval(),
        quantized,
        unpack_ranges(packed),
        halved(stored),
        fixed,
        {name: how.results for name, how in stored.items() if how.results is not None},
    )


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
    """The values of every tensor, exactly, and the codes of those that have them."""
    values: dict[str, Tensor] = {}
    quantized: dict[str, QuantizedTensor] = {}
    fixed: dict[str, FixedTensor] = {}
    try:
        packed = _apart(packed, stored)
        for name, how in stored.items():
            if how.fixed is not None:
                codes = unpack_codes(packed[f"{name}.codes"], how.fixed.bits, how.shape).int()
                fixed[name] = FixedTensor(how.fixed, codes, _finite(packed, f"{name}.grid", (2,)))
                values[name] = fixed[name].values()
            elif how.format is None:
                values[name] = _shaped(packed[name], how.shape)
            elif how.format.bits == HALF_BITS:
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


def _code_bytes(count: int, bits: int) -> int:
    return -(-count * bits // 8)


def unpack_codes(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The codes `pack_codes` packed, in `shape`; `ValueError` for a stream of another length."""
    count = torch.Size(shape).numel()
    stream = _shaped(packed, (_code_bytes(count, bits),)).numpy()
    ones = np.unpackbits(stream, count=count * bits, bitorder="little").reshape(count, bits)
    whole = np.packbits(ones, axis=1, bitorder="little").view(_code_type(bits)).reshape(shape)
    return torch.from_numpy(whole.astype(np.uint8 if bits <= 8 else np.int32))


def _code_type(bits: int) -> str:
    return "u1" if bits <= 8 else "<u2"


def _quantized(
    packed: Mapping[str, Tensor], name: str, shape: tuple[int, ...], how: LayerFormat
) -> QuantizedTensor:
    codes = unpack_codes(packed[f"{name}.codes"], how.bits, shape)
    least, most = how.code_range
    if how.reduce_range and not (least <= codes.min() and codes.max() <= most):
        raise ValueError(f"{name} has codes beyond its reduced range of {least} to {most}")
    places = how.scale_shape(shape)
    scales = _finite(packed, f"{name}.scales", places)
    zeros = unpack_codes(packed[f"{name}.zeros"], how.bits, places) if how.affine else None
    return QuantizedTensor(how, codes, scales, zeros)


def _shaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"one of shape {list(shape)} has {list(tensor.shape)}")
    return tensor


def _finite(packed: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """What codes are multiplied by: a single number that is not finite would spoil them all."""
    tensor = _shaped(packed[name], shape)
    if not tensor.isfinite().all():
        raise ValueError(f"{name} is not finite")
    return tensor


def _format(compressed: Compressed, name: str) -> LayerFormat | None:
    if name in compressed.halved:
        return LayerFormat(bits=HALF_BITS)
    quantized = compressed.quantized.get(name)
    return None if quantized is None else quantized.format
