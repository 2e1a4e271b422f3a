"""Fixed point in a graph: weights computed from their codes at load, results rounded to their grid.

The formulas are those of `autocomp.compress.grids`, in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from autocomp.compress.formats import Compressed
from autocomp.compress.grids import FixedFormat, FixedTensor, grid_of, last_level
from autocomp.compress.ranges import Histogram, beyond, minmax
from autocomp.targets.onnxruntime.edit import consumers, initializers, set_nodes, store
from autocomp.targets.onnxruntime.lowbit import bias_and_output, is_linear, row_factor, users
from autocomp.targets.onnxruntime.narrow import store_codes

Method = Callable[[Histogram], tuple[float, float]]


def results(graph: GraphProto, weights: Iterable[str]) -> dict[str, str]:
    """What convolutions and linear layers give that read one of `weights`, and which of them."""
    readers, stored = consumers(graph), initializers(graph)
    found: dict[str, str] = {}
    for name in weights:
        for node, operand in users(name, readers):
            if node.op_type == "Conv":
                found[node.output[0]] = name
            elif is_linear(node, operand, name):
                _, output = bias_and_output(graph, node, readers, rows=stored[name].dims[0])
                found[output] = name
    return found


def range_method(how: FixedFormat) -> Method:
    """How the range of what a layer gives is found."""
    return partial(beyond, share=how.overflow) if how.overflow else minmax


def store_fixed(
    graph: GraphProto, compressed: Compressed, ranges: Mapping[str, np.ndarray]
) -> None:
    """Store weights in fixed point as their codes, and round `results` over their `ranges`.

    Vectors, such as biases, are stored as the fp32 values of their codes.
    """
    rounded = results(graph, compressed.results)
    nodes: list[NodeProto] = []
    for name, tensor in compressed.fixed.items():
        stored = initializers(graph)
        if name in stored and tensor.codes.ndim > 1:
            values = numpy_helper.to_array(stored[name])
            factor = row_factor(values, tensor.values().cpu().numpy())
            graph.initializer.remove(stored[name])
            nodes += _weight(graph, name, tensor, factor)
    for node in graph.node:
        nodes.append(node)
        name = node.output[0]
        if name in rounded:
            node.output[0] = f"{name}.exact"
            nodes += _rounding(graph, name, compressed.results[rounded[name]], ranges[name])
    set_nodes(graph, nodes)


class Formula:
    """Writes a formula node by node; its numbers become stored constants `<name>.<count>`."""

    def __init__(self, graph: GraphProto, name: str) -> None:
        self.graph, self.name = graph, name
        self.nodes: list[NodeProto] = []

    def __call__(self, kind: str, *operands: str | float | np.ndarray, **attributes: Any) -> str:
        """Add a node that computes `kind` of `operands`; the name of what it gives."""
        place = f"{self.name}.{kind.lower()}{len(self.nodes)}"
        inputs = [
            one
            if isinstance(one, str)
            else store(self.graph, f"{place}.{index}", np.asarray(one, np.float32))
            for index, one in enumerate(operands)
        ]
        self.nodes.append(helper.make_node(kind, inputs, [place], **attributes))
        return place

    def finish(self) -> list[NodeProto]:
        """All nodes; what the last one gives is called `name`."""
        self.nodes[-1].output[0] = self.name
        return self.nodes


def _weight(
    graph: GraphProto, name: str, tensor: FixedTensor, factor: np.ndarray
) -> list[NodeProto]:
    """Store a weight's codes; the nodes that compute its values, times `factor` (rows, 1)."""
    how = tensor.format
    codes = tensor.codes.cpu().numpy().astype(np.uint8 if how.bits <= 8 else np.uint16)
    whole, before = store_codes(graph, name, codes, how.bits)
    write = Formula(graph, name)
    code = write("Cast", whole, to=TensorProto.FLOAT)
    if how.method == "log":
        half = 2.0 ** (how.bits - 1)
        sign = write("Floor", write("Div", code, half))  # 1 if negative
        level = write("Sub", code, write("Mul", sign, half))
        size = _magnitude(write, level, *tensor.grid.tolist())
        values = write("Mul", size, write("Sub", 1, write("Mul", sign, 2)))
    else:
        values = _point(write, how.method, code, *tensor.grid.tolist())
    write("Mul", values, factor.reshape(-1, *[1] * (codes.ndim - 1)))
    return [*before, *write.finish()]


def _rounding(graph: GraphProto, name: str, how: FixedFormat, ends: np.ndarray) -> list[NodeProto]:
    """The nodes that round `<name>.exact` to the grid of the range `ends`; they give `name`."""
    bits, x = how.bits, f"{name}.exact"
    low, high = ends.tolist()
    start, step = grid_of(how.method, low, high, bits)
    write = Formula(graph, name)
    if how.method == "log":
        # log of zero is -inf, whose level is 0 like that of all that is too small
        octaves = write("Div", write("Log", write("Abs", x)), math.log(2))
        level = _nearest(write, octaves, start, step, last_level(bits))
        write("Mul", write("Sign", x), _magnitude(write, level, start, step))
    else:
        points = write("Tanh", x) if how.method == "tanh" else x
        code = _nearest(write, points, start, step, 2**bits - 1)
        _point(write, how.method, code, start, step)
    return write.finish()


def _nearest(write: Formula, points: str, start: float, step: float, most: int) -> str:
    """The codes, from 0 to `most`, nearest to `points`; halves go up."""
    place = write("Div", write("Sub", points, start), step)
    return write("Clip", write("Floor", write("Add", place, 0.5)), 0, most)


def _point(write: Formula, method: str, code: str, start: float, step: float) -> str:
    """What a code stands for; the outermost ones of tanh for half a step less than infinity."""
    point = write("Add", write("Mul", code, step), start)
    if method != "tanh":
        return point
    return write("Atanh", write("Clip", point, step / 2 - 1, 1 - step / 2))


def _magnitude(write: Formula, level: str, start: float, step: float) -> str:
    """2^(start + step x level), or 0 where the level is."""
    octaves = write("Add", write("Mul", level, step), start)
    size = write("Exp", write("Mul", octaves, math.log(2)))
    return write("Mul", size, write("Min", level, 1))
