"""Stores codes, scales and zero points as the kernels for packed weights read them.

What a kernel reads in a wider or longer form than its weights need is made when ONNX Runtime loads
the file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from autocomp.compress.formats import LayerFormat, QuantizedTensor
from autocomp.targets.onnxruntime.edit import store
from autocomp.targets.onnxruntime.narrow import MOST_BITS, store_bytes

KERNEL_BITS = (2, 4, 8)
KERNEL_GROUPS = (32, 64, 128)
"""Sizes of groups that a kernel computes fast at every width; one scale a row is repeated."""


def kernel_codes(codes: np.ndarray, bits: int, group_size: int, filler: int = 0) -> np.ndarray:
    """`codes` (rows, columns) as bytes (rows, groups, bytes a group), low-order bits first.

    The last group of a row is filled up with `filler`.
    """
    padded = _grouped(codes, group_size, filler)
    codes_per_byte = 8 // bits
    packed = np.zeros((*padded.shape[:2], group_size // codes_per_byte), np.uint8)
    for place in range(codes_per_byte):
        packed |= padded[:, :, place::codes_per_byte] << (place * bits)
    return packed


def _grouped(codes: np.ndarray, group_size: int, filler: int) -> np.ndarray:
    """`codes` (rows, columns) as (rows, groups, group_size)."""
    rows, columns = codes.shape
    groups = -(-columns // group_size)
    padded = np.full((rows, groups * group_size), filler, np.uint8)
    padded[:, :columns] = codes
    return padded.reshape(rows, groups, group_size)


def kernel_group(how: LayerFormat, columns: int) -> int:
    """How many inputs to a scale the kernel of a row of `columns` has."""
    if how.group_size is not None:
        return how.group_size
    return next((size for size in KERNEL_GROUPS if size >= columns), KERNEL_GROUPS[-1])


def kernel_bits(how: LayerFormat, shape: Sequence[int]) -> int:
    """The narrowest width with a fast kernel that holds the format."""
    # ORT 1.31 computes 2 bits in groups of 16 some 20 times slower than 4 bits
    narrowest = 4 if kernel_group(how, shape[1]) not in KERNEL_GROUPS else 2
    return min(width for width in KERNEL_BITS if width >= max(how.bits, narrowest))


def store_packed(graph: GraphProto, name: str, tensor: QuantizedTensor) -> list[NodeProto]:
    """Store codes and scales; the nodes that give both the types and shapes the kernels read.

    ONNX Runtime runs these nodes once, when it loads the file.
    """
    rows, columns = tensor.codes.shape
    how = tensor.format
    bits, size = kernel_bits(how, tensor.codes.shape), kernel_group(how, columns)
    nodes = _store_codes(graph, name, tensor, bits, size)
    store(graph, f"{name}.scales", tensor.scales.cpu().numpy())
    store(graph, f"{name}.table_shape", np.array([rows, -1]))
    for end, value in {"first": 0, "end": columns, "axis": -1}.items():
        store(graph, f"{name}.{end}", np.array([value]))
    scales = f"{name}.scales_fp32"
    spread = [rows, -(-columns // size)]
    if list(tensor.scales.shape) == spread:
        nodes.append(helper.make_node("Cast", [f"{name}.scales"], [scales], to=TensorProto.FLOAT))
    else:
        whole = store(graph, f"{name}.spread", np.array(spread))
        nodes += [
            helper.make_node(
                "Cast", [f"{name}.scales"], [f"{name}.few_fp32"], to=TensorProto.FLOAT
            ),
            helper.make_node("Expand", [f"{name}.few_fp32", whole], [scales]),
        ]
    nodes.append(
        helper.make_node("Reshape", [f"{name}.codes", f"{name}.table_shape"], [f"{name}.table"])
    )
    return nodes + _store_zeros(graph, name, tensor, bits, spread)


def _store_codes(
    graph: GraphProto, name: str, tensor: QuantizedTensor, bits: int, size: int
) -> list[NodeProto]:
    """Store `<name>.codes` as a kernel of `bits` reads them, or what is widened to that."""
    asked, zero = tensor.format.bits, tensor.format.zero_point
    codes = tensor.codes.cpu().numpy()
    # a kernel that is told no zero points takes the middle of its own codes
    shift = 0 if tensor.format.affine else 2 ** (bits - 1) - zero
    if asked < bits and asked <= MOST_BITS:
        grouped = _grouped(codes, size, zero)
        return store_bytes(graph, f"{name}.codes", grouped, asked, bits, shift)
    store(graph, f"{name}.codes", kernel_codes(codes + np.uint8(shift), bits, size, zero + shift))
    return []


def _store_zeros(
    graph: GraphProto, name: str, tensor: QuantizedTensor, bits: int, spread: list[int]
) -> list[NodeProto]:
    """Store the zero points as a kernel of `bits` reads them, several to a byte of a row."""
    if tensor.zeros is None:
        return []
    zeros = np.broadcast_to(tensor.zeros.cpu().numpy(), spread)
    width = -(-spread[1] * bits // 8)
    packed = kernel_codes(zeros, bits, width * 8 // bits).reshape(spread[0], width)
    if tensor.format.group_size is None:
        first = zeros[: tensor.zeros.shape[0], :1]
        packed = kernel_codes(np.repeat(first, 8 // bits, 1), bits, 8 // bits).reshape(-1, 1)
    held = store(graph, f"{name}.zeros", packed)
    whole = store(graph, f"{name}.zeros_shape", np.array([spread[0], width]))
    return [helper.make_node("Expand", [held, whole], [f"{name}.kernel_zeros"])]
