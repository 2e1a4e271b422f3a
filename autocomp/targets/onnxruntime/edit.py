"""Small edits of an ONNX graph: who reads what, what is unused, what is stored twice."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


def initializers(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """The stored tensors of a graph by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def constants(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """The tensors that a graph stores, or that its nodes hold, by name."""
    held = {
        node.output[0]: node.attribute[0].t
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    return held | initializers(graph)


def consumers(graph: onnx.GraphProto) -> dict[str, list[NodeProto]]:
    """The nodes that read each tensor; a graph output counts as read by a node of its own."""
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for output in graph.output:
        readers.setdefault(output.name, []).append(helper.make_node("Output", [output.name], []))
    return readers


def attribute(node: NodeProto, name: str, default: object) -> object:
    """An attribute's value, or `default` where the node does not give it."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


def store(graph: onnx.GraphProto, name: str, values: np.ndarray) -> str:
    """Add a stored tensor, or replace the one of that name; returns `name`."""
    tensor = numpy_helper.from_array(np.asarray(values, order="C"), name)
    for existing in graph.initializer:
        if existing.name == name:
            existing.CopyFrom(tensor)
            return name
    graph.initializer.append(tensor)
    return name


def dequantized(
    graph: onnx.GraphProto, name: str, codes: np.ndarray, scale: np.ndarray
) -> NodeProto:
    """Store codes with a scale for each of the first axis; the node that gives their values."""
    store(graph, f"{name}.codes", codes)
    return values_of(graph, name, scale)


def values_of(graph: onnx.GraphProto, name: str, scale: np.ndarray) -> NodeProto:
    """The node that gives the values of the codes `<name>.codes`, a scale for each of axis 0."""
    inputs = [f"{name}.codes", store(graph, f"{name}.scale", scale)]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}.values"], axis=0)


def set_nodes(graph: onnx.GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Make `nodes` the graph's nodes, in that order."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Call tensors by new names wherever they are stored, computed or read."""
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
        for index, name in enumerate(node.output):
            node.output[index] = names.get(name, name)


def split_aliases(graph: onnx.GraphProto) -> None:
    """Give each name of a stored tensor its own copy, so that weights are found by their names.

    The exporter keeps one of several equal tensors and reaches the others through Identity.
    """
    stored = initializers(graph)
    kept = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in stored:
            copy = TensorProto()
            copy.CopyFrom(stored[node.input[0]])
            copy.name = node.output[0]
            graph.initializer.append(copy)
            stored[copy.name] = copy
        else:
            kept.append(node)
    set_nodes(graph, kept)


def remove_unused(graph: onnx.GraphProto) -> None:
    """Drop nodes whose results nobody reads, then stored tensors that nobody reads."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    set_nodes(graph, reversed(kept))
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def store_halved(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Store the named tensors as fp16; ONNX Runtime widens them once, when it loads the file."""
    nodes = []
    for tensor in list(graph.initializer):
        if tensor.name in names:
            # folded norms are in it, and may have made it larger than fp16 holds
            largest = np.finfo(np.float16).max
            half = numpy_helper.to_array(tensor).clip(-largest, largest).astype(np.float16)
            source = store(graph, f"{tensor.name}.half", half)
            nodes.append(helper.make_node("Cast", [source], [tensor.name], to=TensorProto.FLOAT))
    widened = {node.output[0] for node in nodes}
    kept = [tensor for tensor in graph.initializer if tensor.name not in widened]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    set_nodes(graph, [*nodes, *graph.node])


def merge_equal(graph: onnx.GraphProto) -> None:
    """Store equal tensors once, but for those that the graph gives by their names."""
    outputs = {output.name for output in graph.output}
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    kept = []
    for tensor in graph.initializer:
        content = numpy_helper.to_array(tensor).tobytes()
        name = first.setdefault((tensor.data_type, tuple(tensor.dims), content), tensor.name)
        if name == tensor.name or tensor.name in outputs:
            kept.append(tensor)
        else:
            same[tensor.name] = name
    del graph.initializer[:]
    graph.initializer.extend(kept)
    rename(graph, same)
