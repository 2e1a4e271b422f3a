"""Writes shapes that are known, or follow from an input's, as constants.

A traced view computes its shape node by node at every call. In one step of a small decoder these
nodes take as long as its packed matrix products, and they hide patterns the runtime would fuse.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import (
    GraphProto,
    NodeProto,
    TensorProto,
    TypeProto,
    helper,
    numpy_helper,
    shape_inference,
)
from onnx.reference import ReferenceEvaluator

from autocomp.targets.onnxruntime.edit import (
    attribute,
    consumers,
    initializers,
    remove_unused,
    set_nodes,
    store,
)

Dims = tuple[int | str | None, ...]
"""Lengths of a tensor's axes: a number, the name of a length that changes, or None if unknown."""

_MOST_ROUNDS = 64
_MOST_LENGTHS = 16
_ARITHMETIC = ("Add", "Cast", "Ceil", "Clip", "Div", "Floor", "Mod", "Mul", "Sqrt", "Sub")
_MOVES = ("Concat", "ConstantOfShape", "Gather", "Identity", "Reshape", "Slice", "Transpose")
_FOLDED = frozenset((*_ARITHMETIC, *_MOVES, "Squeeze", "Unsqueeze"))


def fix_shapes(model: onnx.ModelProto) -> None:
    """Make constant every known length and every Reshape that only copies lengths of its input.

    Padding that turns out constant goes into the convolution that reads it.
    """
    given = {tensor.name for tensor in model.graph.initializer}
    _store_constants(model.graph)
    for _ in range(_MOST_ROUNDS):  # a length found lets inference find more
        known, before = _known_dims(model), len(model.graph.node)
        _fold_lengths(model.graph, known, given)
        for node in model.graph.node:
            if node.op_type == "Reshape":
                _fix_reshape(model.graph, node, known)
        remove_unused(model.graph)
        if len(model.graph.node) == before:
            break
    _merge_padding(model.graph)


def _store_constants(graph: GraphProto) -> None:
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            store(graph, node.output[0], numpy_helper.to_array(node.attribute[0].t))
        else:
            kept.append(node)
    set_nodes(graph, kept)


def _known_dims(model: onnx.ModelProto) -> dict[str, Dims]:
    """What inference finds from the inputs; names given to output axes are not to be relied on."""
    declared = []
    for output in model.graph.output:
        declared.append(TypeProto())
        declared[-1].CopyFrom(output.type)
        output.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    for output, declaration in zip(model.graph.output, declared, strict=True):
        output.type.CopyFrom(declaration)
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
            for dim in value.type.tensor_type.shape.dim
        )
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }


def _fold_lengths(graph: GraphProto, known: dict[str, Dims], given: Collection[str]) -> None:
    """Compute now what depends on known lengths and small constants alone.

    The tensors `given` are the model's: what is made of its weights has formats by their names.
    """
    constants = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.name not in given and np.prod(tensor.dims) <= _MOST_LENGTHS
    }
    shapes = {
        node.output[0]: known[node.input[0]]
        for node in graph.node
        if node.op_type == "Shape" and not node.attribute and node.input[0] in known
    }
    kept = []
    for node in graph.node:
        value = _value(node, constants, shapes)
        if value is None:
            kept.append(node)
        else:
            constants[node.output[0]] = value
            store(graph, node.output[0], value)
    set_nodes(graph, kept)


def _value(
    node: NodeProto, constants: dict[str, np.ndarray], shapes: dict[str, Dims]
) -> np.ndarray | None:
    """What a node computes, if that is known."""
    source, *others = node.input
    if source in shapes and all(name in constants for name in others):
        return _picked(node.op_type, shapes[source], [constants[name] for name in others])
    inputs = [name for name in node.input if name]  # an optional input that is left out has none
    if node.op_type not in _FOLDED or any(name not in constants for name in inputs):
        return None
    (value,) = ReferenceEvaluator(node).run(None, {name: constants[name] for name in inputs})
    return np.asarray(value) if np.size(value) <= _MOST_LENGTHS else None


def _merge_padding(graph: GraphProto) -> None:
    """Let a convolution pad with zeros itself, on each side as much as the Pad before it does."""
    stored, readers = initializers(graph), consumers(graph)
    merged = []
    for pad in graph.node:
        if pad.op_type != "Pad" or pad.input[1] not in stored or not _pads_zeros(pad, stored):
            continue
        (conv, *others) = readers[pad.output[0]]
        begin, end = numpy_helper.to_array(stored[pad.input[1]]).reshape(2, -1)
        if conv.op_type != "Conv" or others or any(begin[:2]) or any(end[:2]):
            continue
        before = np.concatenate([begin[2:], end[2:]])
        pads = before + np.array(attribute(conv, "pads", [0] * len(before)))
        kept = [one for one in conv.attribute if one.name not in ("pads", "auto_pad")]
        del conv.attribute[:]
        conv.attribute.extend([*kept, helper.make_attribute("pads", pads.tolist())])
        conv.input[0] = pad.input[0]
        merged.append(pad.output[0])
    set_nodes(graph, [node for node in graph.node if node.output[0] not in merged])
    remove_unused(graph)


def _pads_zeros(pad: NodeProto, stored: dict[str, TensorProto]) -> bool:
    value = pad.input[2] if len(pad.input) > 2 else ""
    is_zero = not value or (value in stored and not numpy_helper.to_array(stored[value]).any())
    return attribute(pad, "mode", b"constant") == b"constant" and is_zero


def _picked(kind: str, dims: Dims, arguments: list[np.ndarray]) -> np.ndarray | None:
    """What a Gather or Slice takes out of a shape, if all of that is known."""
    lengths = np.array(dims, dtype=object)
    if kind == "Gather":
        picked = np.array(lengths[arguments[0]], dtype=object)
    elif kind == "Slice":
        start, end, *_ = (int(argument.item()) for argument in arguments)
        step = int(arguments[3].item()) if len(arguments) > 3 else 1
        picked = lengths[start:end:step]
    else:
        return None
    is_known = all(isinstance(length, int) for length in picked.ravel())
    return picked.astype(np.int64) if is_known else None


def _fix_reshape(graph: GraphProto, node: NodeProto, known: dict[str, Dims]) -> None:
    data, output = node.input[0], node.output[0]
    if data in known and output in known:
        target = copying_shape(known[data], known[output])
        if target is not None:
            node.input[1] = store(graph, f"{output}.shape", np.array(target, dtype=np.int64))


def copying_shape(before: Dims, after: Dims) -> list[int] | None:
    """A constant that reshapes `before` to `after`: 0 copies a length, one -1 is what is left."""
    target = []
    for axis, length in enumerate(after):
        if isinstance(length, int):
            target.append(length)
        elif length is not None and before[axis : axis + 1] == (length,):
            target.append(0)
        else:
            target.append(-1)
    # nothing can be left over beside an axis of length 0, such as an empty cache's
    may_be_empty = -1 in target and 0 in target[1:]
    return None if 0 in after or target.count(-1) > 1 or may_be_empty else target
