"""Puts kernels that read packed weights in place of dense ones, and packs the weights for them.

A linear layer becomes MatMulNBits, an embedding GatherBlockQuantized. Both read the same packed
tensor, so a head that is tied to its embedding costs nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper

from autocomp.compress.formats import QuantizedTensor
from autocomp.targets.onnxruntime.edit import (
    attribute,
    consumers,
    initializers,
    remove_unused,
    set_nodes,
    store,
)

KERNEL_BITS = (2, 4, 8)
INT8_ACTIVATIONS = 4
"""ONNX Runtime's name for computing with activations rounded to int8, a scale a group."""
_DOMAIN = "com.microsoft"


def pack_weights(
    model: onnx.ModelProto,
    quantized: Mapping[str, QuantizedTensor],
    accuracy_level: int = INT8_ACTIVATIONS,
) -> list[str]:
    """Rewrite every layer whose weight is in `quantized`; one line for each held wider than asked.

    Stored tensors must bear the names that `quantized` uses. `accuracy_level` 0 computes in fp32.
    """
    stored = initializers(model.graph)
    skipped: list[str] = []
    for name, tensor in quantized.items():
        if name in stored:
            skipped.extend(_rewrite(model.graph, name, tensor, accuracy_level))
    remove_unused(model.graph)
    if any(node.domain == _DOMAIN for node in model.graph.node):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return skipped


def pack_codes(codes: np.ndarray, bits: int, group_size: int) -> np.ndarray:
    """`codes` (rows, columns) as bytes (rows, groups, bytes a group), low-order bits first.

    The last group of a row is filled up with the zero point.
    """
    rows, columns = codes.shape
    groups, codes_per_byte = -(-columns // group_size), 8 // bits
    padded = np.full((rows, groups * group_size), 2 ** (bits - 1), np.uint8)
    padded[:, :columns] = codes
    packed = np.zeros((rows, groups, group_size // codes_per_byte), np.uint8)
    for place in range(codes_per_byte):
        packed |= padded[:, place::codes_per_byte].reshape(packed.shape) << (place * bits)
    return packed


def kernel_bits(bits: int, group_size: int) -> int:
    """The narrowest width with a kernel that holds `bits`."""
    # ORT 1.31 computes 2 bits in groups of 16 some 20 times slower than 4 bits
    narrowest = 4 if group_size < 32 else 2
    return min(width for width in KERNEL_BITS if width >= max(bits, narrowest))


def _rewrite(
    graph: GraphProto, name: str, tensor: QuantizedTensor, accuracy_level: int
) -> list[str]:
    """Put a kernel in place of each layer that reads the weight `name`; what was held wider."""
    asked, group_size = tensor.format.bits, tensor.group_size
    bits = kernel_bits(asked, group_size)
    sizes = {"bits": bits, "block_size": group_size}
    readers = consumers(graph)
    kernels: dict[str, list[NodeProto]] = {}
    lines: list[str] = []
    for node, operand in _users(name, readers):
        if _is_embedding(node, operand):
            kernels[node.output[0]] = _gather(node, name, tensor, sizes)
        elif _is_linear(node, operand, name):
            bias, output = _bias_and_output(graph, node, readers, rows=tensor.codes.shape[0])
            attributes = sizes | {"accuracy_level": accuracy_level}
            kernels[output] = [_matmul(node.input[0], bias, output, name, tensor, attributes)]
        else:
            lines.append(
                f"{name}: {asked} bits have no kernel where {node.op_type} reads them, "
                "so these weights are stored as fp32"
            )
    if not kernels:
        return lines
    if bits != asked:
        lines.append(f"{name}: {asked} bits have no kernel, so these weights are stored at {bits}")
    nodes = _store_packed(graph, name, tensor, bits)
    for node in graph.node:
        nodes.extend(kernels.get(node.output[0], [node]))
    set_nodes(graph, nodes)
    return lines


def _users(name: str, readers: Mapping[str, list[NodeProto]]) -> Iterator[tuple[NodeProto, str]]:
    """The nodes that read a weight, or its transpose, and the name under which they do."""
    for node in readers.get(name, []):
        if node.op_type == "Transpose":
            transposed = node.output[0]
            yield from ((reader, transposed) for reader in readers.get(transposed, []))
        else:
            yield node, name


def _is_embedding(node: NodeProto, operand: str) -> bool:
    is_table = node.op_type == "Gather" and node.input[0] == operand
    return is_table and attribute(node, "axis", 0) == 0


def _is_linear(node: NodeProto, operand: str, weight: str) -> bool:
    """True if `node` multiplies by the weight's transpose from the right, and nothing else."""
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] != operand:
        return False
    transposed = operand != weight
    if node.op_type == "MatMul":
        return transposed
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": int(not transposed)}
    defaults = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    return all(attribute(node, key, defaults[key]) == value for key, value in plain.items())


def _bias_and_output(
    graph: GraphProto, node: NodeProto, readers: Mapping[str, list[NodeProto]], rows: int
) -> tuple[str, str]:
    """A linear layer's stored bias ("" if it has none), and the tensor that holds its result."""
    if len(node.input) > 2:
        return node.input[2], node.output[0]
    (reader, *others) = readers[node.output[0]]
    if reader.op_type == "Add" and not others:
        stored = initializers(graph)
        for name in reader.input:
            if name in stored and list(stored[name].dims) == [rows]:
                return name, reader.output[0]
    return "", node.output[0]


def _store_packed(
    graph: GraphProto, name: str, tensor: QuantizedTensor, bits: int
) -> list[NodeProto]:
    """Store codes and scales; the nodes that give both the types and shapes the kernels read.

    ONNX Runtime runs these nodes once, when it loads the file.
    """
    widened = tensor.codes.cpu().numpy().astype(np.int16) - tensor.format.zero_point
    codes = (widened + 2 ** (bits - 1)).astype(np.uint8)
    packed = pack_codes(codes, bits, tensor.group_size)
    rows, columns = codes.shape
    store(graph, f"{name}.codes", packed)
    store(graph, f"{name}.scales", tensor.scales.cpu().numpy())
    store(graph, f"{name}.table_shape", np.array([rows, -1]))
    for end, value in {"first": 0, "end": columns, "axis": -1}.items():
        store(graph, f"{name}.{end}", np.array([value]))
    return [
        helper.make_node("Cast", [f"{name}.scales"], [f"{name}.scales_fp32"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", [f"{name}.codes", f"{name}.table_shape"], [f"{name}.table"]),
    ]


def _matmul(
    activations: str,
    bias: str,
    output: str,
    name: str,
    tensor: QuantizedTensor,
    attributes: Mapping[str, int],
) -> NodeProto:
    rows, columns = tensor.codes.shape
    inputs = [activations, f"{name}.codes", f"{name}.scales_fp32", "", "", bias]
    return helper.make_node(
        "MatMulNBits",
        inputs if bias else inputs[:3],
        [output],
        domain=_DOMAIN,
        K=columns,
        N=rows,
        **attributes,
    )


def _gather(
    node: NodeProto, name: str, tensor: QuantizedTensor, attributes: Mapping[str, int]
) -> list[NodeProto]:
    output = node.output[0]
    is_padded = tensor.codes.shape[1] % tensor.group_size != 0
    gather = helper.make_node(
        "GatherBlockQuantized",
        [f"{name}.table", node.input[1], f"{name}.scales_fp32"],
        [f"{output}.padded" if is_padded else output],
        domain=_DOMAIN,
        gather_axis=0,
        quantize_axis=1,
        **attributes,
    )
    if not is_padded:
        return [gather]
    ends = [f"{name}.{end}" for end in ("first", "end", "axis")]
    return [gather, helper.make_node("Slice", [f"{output}.padded", *ends], [output])]
