"""Puts kernels that read packed weights in place of dense ones, and packs the weights for them.

A linear layer becomes MatMulNBits, an embedding GatherBlockQuantized. Both read the same packed
tensor, so a head that is tied to its embedding costs nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

from autocomp.compress.formats import FLOAT_BITS, QuantizedTensor
from autocomp.errors import first_of
from autocomp.targets.onnxruntime.edit import (
    attribute,
    consumers,
    initializers,
    remove_unused,
    set_nodes,
)
from autocomp.targets.onnxruntime.narrow import store_values
from autocomp.targets.onnxruntime.packed import kernel_bits, kernel_group, store_packed

INT8_ACTIVATIONS = 4
"""ONNX Runtime's name for computing with activations rounded to int8, a scale a group."""
_DOMAIN = "com.microsoft"


def pack_weights(
    model: onnx.ModelProto, quantized: Mapping[str, QuantizedTensor]
) -> tuple[dict[str, int], list[str]]:
    """Rewrite every layer whose weight is in `quantized`.

    Stored tensors must bear the names that `quantized` uses. What no kernel reads, or shall compute
    in fp32, is widened when the file is loaded. Returns in how many bits each weight of the graph
    computes, and a line for those that are widened though a kernel was asked for.
    """
    graph = model.graph
    computed: dict[str, int] = {}
    lines: list[str] = []
    for name, tensor in quantized.items():
        if name not in initializers(graph):
            continue
        rounds_inputs = tensor.format.activation_bits < FLOAT_BITS
        reader = _reader_without_kernel(graph, name)
        if rounds_inputs and reader is None:
            _put(graph, _kernels(graph, name, tensor), store_packed(graph, name, tensor))
            computed[name] = kernel_bits(tensor.format, tensor.codes.shape)
            continue
        _widen(graph, name, tensor)
        computed[name] = FLOAT_BITS
        if rounds_inputs:
            where = f" where {reader} reads them"
            lines.append(f"{name}: {_no_kernel(tensor.format.bits, 'fp32', where)}")
    remove_unused(graph)
    if any(node.domain == _DOMAIN for node in graph.node):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return computed, lines


def wider_lines(
    computed_bits: Mapping[str, int], quantized: Mapping[str, QuantizedTensor]
) -> list[str]:
    """A line for each width whose weights compute as codes of another."""
    widened: dict[tuple[int, int], list[str]] = {}
    for name, bits in computed_bits.items():
        if (asked := quantized[name].format.bits) < bits < FLOAT_BITS:
            widened.setdefault((asked, bits), []).append(name)
    return [
        f"{first_of(names)}: {_no_kernel(asked, str(bits))}"
        for (asked, bits), names in widened.items()
    ]


def _no_kernel(asked: int, computed: str, where: str = " that is fast") -> str:
    return (
        f"{asked} bits have no kernel{where}, so these weights are stored in {asked} bits and "
        f"computed in {computed}"
    )


def _put(
    graph: GraphProto, kernels: Mapping[str, list[NodeProto]], before: Sequence[NodeProto]
) -> None:
    """Put `kernels` in place of the nodes that compute the tensors they are keyed by."""
    nodes = list(before)
    for node in graph.node:
        nodes.extend(kernels.get(node.output[0], [node]))
    set_nodes(graph, nodes)
    remove_unused(graph)


def _reader_without_kernel(graph: GraphProto, name: str) -> str | None:
    """The kind of the first node that reads the weight `name` as no kernel does.

    Where there is one, all of them read what is widened: codes in two forms would be stored twice.
    """
    is_matrix = len(initializers(graph)[name].dims) == 2
    for node, operand in users(name, consumers(graph)):
        if not is_matrix or not (_is_embedding(node, name) or is_linear(node, operand, name)):
            return str(node.op_type)
    return None


def _widen(graph: GraphProto, name: str, tensor: QuantizedTensor) -> None:
    """Let what reads the weight `name` read its widened codes."""
    stored = initializers(graph)
    values, own = numpy_helper.to_array(stored[name]), tensor.dequantize().cpu().numpy()
    nodes = store_values(graph, name, tensor, row_factor(values, own))
    graph.initializer.remove(stored[name])
    set_nodes(graph, [*nodes, *graph.node])


def row_factor(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """What each row of `own` was multiplied by to give that of `values`, (rows, 1)."""
    rows, before = values.reshape(len(values), -1), own.reshape(len(own), -1)
    largest = np.abs(before).argmax(axis=1)[:, None]
    divisor = np.take_along_axis(before, largest, 1)
    ratio = np.take_along_axis(rows, largest, 1) / np.where(divisor == 0, 1, divisor)
    return np.asarray(np.where(divisor == 0, 1, ratio), dtype=np.float32)


def _kernels(graph: GraphProto, name: str, tensor: QuantizedTensor) -> dict[str, list[NodeProto]]:
    """What can take the place of the nodes that read the weight `name`, by its result."""
    sizes = {
        "bits": kernel_bits(tensor.format, tensor.codes.shape),
        "block_size": kernel_group(tensor.format, tensor.codes.shape[1]),
    }
    packed = [f"{name}.codes", f"{name}.scales_fp32"]
    zeros = [f"{name}.kernel_zeros"] if tensor.format.affine else []
    readers = consumers(graph)
    kernels: dict[str, list[NodeProto]] = {}
    for node, _ in users(name, readers):
        if _is_embedding(node, name):
            kernels[node.output[0]] = _gather(node, name, tensor, zeros, sizes)
        else:
            bias, output = bias_and_output(graph, node, readers, rows=tensor.codes.shape[0])
            inputs = [node.input[0], *packed, *zeros]
            added = [one for one in node.input[2:] if one != bias]
            product = f"{output}.product" if added else output
            kernels[output] = [_matmul(inputs, bias, product, tensor, sizes)]
            if added:
                kernels[output].append(helper.make_node("Add", [product, *added], [output]))
    return kernels


def users(name: str, readers: Mapping[str, list[NodeProto]]) -> Iterator[tuple[NodeProto, str]]:
    """The nodes that read a weight, or its transpose, and the name under which they do."""
    for node in readers.get(name, []):
        if node.op_type == "Transpose":
            transposed = node.output[0]
            yield from ((reader, transposed) for reader in readers.get(transposed, []))
        else:
            yield node, name


def _is_embedding(node: NodeProto, weight: str) -> bool:
    is_table = node.op_type == "Gather" and node.input[0] == weight
    return is_table and attribute(node, "axis", 0) == 0


def is_linear(node: NodeProto, operand: str, weight: str) -> bool:
    """True if `node` multiplies by the weight's transpose from the right, and nothing else."""
    places = [place for place, one in enumerate(node.input) if one == operand]
    if node.op_type not in ("MatMul", "Gemm") or places != [1]:
        return False
    transposed = operand != weight
    if node.op_type == "MatMul":
        return transposed
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": int(not transposed)}
    defaults = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    return all(attribute(node, key, defaults[key]) == value for key, value in plain.items())


def bias_and_output(
    graph: GraphProto, node: NodeProto, readers: Mapping[str, list[NodeProto]], rows: int
) -> tuple[str, str]:
    """A linear layer's stored bias (rows,), "" if it has none, and what holds its result."""
    stored = initializers(graph)
    (reader, *others) = readers[node.output[0]]
    is_followed = len(node.input) == 2 and reader.op_type == "Add" and not others
    last = reader if is_followed else node
    for name in last.input[0 if is_followed else 2 :]:
        if name in stored and list(stored[name].dims) == [rows]:
            return name, last.output[0]
    return "", node.output[0]


def _matmul(
    inputs: Sequence[str],
    bias: str,
    output: str,
    tensor: QuantizedTensor,
    sizes: Mapping[str, int],
) -> NodeProto:
    rows, columns = tensor.codes.shape
    return helper.make_node(
        "MatMulNBits",
        [*inputs, *[""] * (5 - len(inputs)), bias] if bias else inputs,
        [output],
        domain=_DOMAIN,
        K=columns,
        N=rows,
        **sizes,
        accuracy_level=INT8_ACTIVATIONS,
    )


def _gather(
    node: NodeProto,
    name: str,
    tensor: QuantizedTensor,
    zeros: Sequence[str],
    sizes: Mapping[str, int],
) -> list[NodeProto]:
    output = node.output[0]
    is_padded = tensor.codes.shape[1] % sizes["block_size"] != 0
    gather = helper.make_node(
        "GatherBlockQuantized",
        [f"{name}.table", node.input[1], f"{name}.scales_fp32", *zeros],
        [f"{output}.padded" if is_padded else output],
        domain=_DOMAIN,
        gather_axis=0,
        quantize_axis=1,
        **sizes,
    )
    if not is_padded:
        return [gather]
    ends = [f"{name}.{end}" for end in ("first", "end", "axis")]
    return [gather, helper.make_node("Slice", [f"{output}.padded", *ends], [output])]
