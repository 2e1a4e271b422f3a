"""Convolutions that compute in 8 bits: QuantizeLinear and DequantizeLinear around each.

ONNX Runtime fuses them into integer kernels when it loads the file. Activations are unsigned with a
range measured beforehand, weights signed with a scale an output channel: the pair that x86 computes
fastest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

from autocomp.compress.formats import QuantizedTensor
from autocomp.targets.onnxruntime.edit import (
    consumers,
    dequantized,
    initializers,
    remove_unused,
    set_nodes,
    store,
    values_of,
)
from autocomp.targets.onnxruntime.narrow import store_narrow
from autocomp.targets.onnxruntime.pixels import Affine, normalise_pixels, pixel_codes

LEVELS = 255
WEIGHT_LEVELS = 127
CODE_BITS = 8
LARGEST_BIAS = 2.0**30
ACTIVATIONS = ("Relu", "Clip")
"""What the integer kernel of a convolution computes along with it."""


def activations(graph: GraphProto, quantized: Mapping[str, QuantizedTensor]) -> dict[str, str]:
    """The tensors to round to 8 bits, in the graph's order, and how the range of each is found."""
    readers = consumers(graph)
    methods: dict[str, str] = {}
    for conv in _convolutions(graph, quantized):
        for name in (conv.input[0], _result(conv, readers)):
            methods.setdefault(name, quantized[conv.input[1]].format.ranges or "minmax")
    return methods


def quantize_convolutions(
    model: onnx.ModelProto,
    quantized: Mapping[str, QuantizedTensor],
    ranges: Mapping[str, np.ndarray],
) -> dict[str, int]:
    """Rewrite every convolution whose weight is in `quantized` to compute in 8 bits.

    `ranges` has the ends (2,) of the range of each of `activations`. Returns in how many bits each
    of these weights computes.
    """
    graph = model.graph
    names = list(activations(graph, quantized))
    if not names:
        return {}
    scales = {name: _affine(*ranges[name].tolist()) for name in names}
    pixels = pixel_codes(graph, names)
    scales |= {name: affine for name, (_, affine) in pixels.items()}
    sharing: dict[str, list[NodeProto]] = {}
    for conv in _convolutions(graph, quantized):
        sharing.setdefault(conv.input[1], []).append(conv)
    before: dict[str, list[NodeProto]] = {}
    for weight, convs in sharing.items():
        steps = [scales[conv.input[0]][0] for conv in convs]
        before |= _pack(graph, convs, quantized[weight], steps)
    normalise_pixels(graph, set(scales) - set(pixels))
    after = _round_activations(graph, scales, {name: one for name, (one, _) in pixels.items()})
    # a convolution may read the graph's own input, which no node makes
    nodes = [pair for given in graph.input for pair in after.get(given.name, [])]
    for node in graph.node:
        nodes += [*before.get(node.output[0], []), node]
        nodes += [pair for output in node.output for pair in after.get(output, [])]
    set_nodes(graph, nodes)
    remove_unused(graph)
    return dict.fromkeys(sharing, CODE_BITS)


def _convolutions(graph: GraphProto, quantized: Mapping[str, QuantizedTensor]) -> list[NodeProto]:
    """The convolutions whose weights integer kernels can read, and nothing else does."""
    stored, readers = initializers(graph), consumers(graph)

    def is_integer(node: NodeProto, weight: str) -> bool:
        # of a stored input the result is stored too, once the runtime has computed it
        is_layer = node.op_type == "Conv" and node.input[0] not in stored
        return is_layer and node.input[1] == weight and all(one in stored for one in node.input[2:])

    weights = {
        name
        for name, tensor in quantized.items()
        if tensor.format.ranges is not None
        and all(is_integer(node, name) for node in readers.get(name, []))
    }
    return [node for node in graph.node if node.op_type == "Conv" and node.input[1] in weights]


def _result(conv: NodeProto, readers: Mapping[str, list[NodeProto]]) -> str:
    """What the integer kernel writes: the convolution's result, past an activation it includes."""
    (reader, *others) = readers[conv.output[0]]
    included = reader.op_type in ACTIVATIONS and not others
    return str(reader.output[0] if included else conv.output[0])


def _affine(low: float, high: float) -> Affine:
    """Scale and zero point of 8 unsigned bits over [low, high], which holds zero."""
    if low == high:
        return np.float32(1), np.uint8(0)
    scale = np.float32((high - low) / LEVELS)
    # past a Clip's own bound, if by a rounding error, the runtime would keep it as a node
    if scale * LEVELS > high - low:
        scale = np.nextafter(scale, np.float32(0))
    return scale, np.uint8(np.clip(np.round(-low / scale), 0, LEVELS))


def _round_activations(
    graph: GraphProto, scales: Mapping[str, Affine], codes: Mapping[str, str]
) -> dict[str, list[NodeProto]]:
    """Let every reader of a tensor read its rounded form; the nodes that make it, by tensor.

    `codes` names the tensors whose 8-bit codes are there already.
    """
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in scales:
                node.input[place] = f"{name}.rounded"
    pairs: dict[str, list[NodeProto]] = {}
    for name, (scale, zero) in scales.items():
        how = [
            store(graph, f"{name}.scale", np.asarray(scale)),
            store(graph, f"{name}.zero", np.asarray(zero)),
        ]
        rounded = codes.get(name, f"{name}.codes")
        pairs[name] = [
            helper.make_node("QuantizeLinear", [name, *how], [f"{name}.codes"]),
            helper.make_node("DequantizeLinear", [rounded, *how], [f"{name}.rounded"]),
        ]
    return pairs


def _pack(
    graph: GraphProto,
    convs: Sequence[NodeProto],
    tensor: QuantizedTensor,
    input_scales: Sequence[np.float32],
) -> dict[str, list[NodeProto]]:
    """Store the codes that `convs` share, and their biases.

    Returns the nodes that give their values, keyed by the result of the convolution they precede.
    """
    stored = initializers(graph)
    name = convs[0].input[1]
    weight = numpy_helper.to_array(stored[name])
    scale = _weight_scale(weight, tensor)
    for conv, input_scale in zip(convs, input_scales, strict=True):
        for bias in conv.input[2:]:
            # a channel whose weights are next to nothing would overflow its bias
            least = np.abs(numpy_helper.to_array(stored[bias])) / (LARGEST_BIAS * input_scale)
            scale = np.maximum(scale, least).astype(np.float32)
    shape = (-1, *[1] * (weight.ndim - 1))
    codes = np.clip(np.round(weight / scale.reshape(shape)), -WEIGHT_LEVELS, WEIGHT_LEVELS)
    if tensor.format.bits < CODE_BITS:
        nodes = store_narrow(graph, f"{name}.codes", codes, tensor.format.bits)
        nodes.append(values_of(graph, name, scale))
    else:
        nodes = [dequantized(graph, name, codes.astype(np.int8), scale)]
    before = {}
    for conv, input_scale in zip(convs, input_scales, strict=True):
        conv.input[1] = nodes[-1].output[0]
        before[conv.output[0]] = _pack_bias(graph, conv, scale * input_scale)
    before[convs[0].output[0]][:0] = nodes
    return before


def _pack_bias(graph: GraphProto, conv: NodeProto, scale: np.ndarray) -> list[NodeProto]:
    """Store a convolution's bias in whole numbers of `scale` (channels,); what gives its values."""
    stored = initializers(graph)
    nodes = []
    for place, bias in enumerate(conv.input[2:], 2):
        whole = np.round(numpy_helper.to_array(stored[bias]) / scale).astype(np.int32)
        # another convolution may have it too, in numbers of another scale
        name = f"{conv.output[0]}.bias" if f"{bias}.codes" in stored else bias
        nodes.append(dequantized(graph, name, whole, scale))
        conv.input[place] = nodes[-1].output[0]
    return nodes


def _weight_scale(weight: np.ndarray, tensor: QuantizedTensor) -> np.ndarray:
    """The scale of each output channel: that of its codes times what a folded norm made of it."""
    largest_code = np.abs(tensor.levels().cpu().numpy()).max(axis=1)
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    smallest = np.finfo(np.float32).tiny
    scale = np.maximum(largest / np.maximum(largest_code, 1), smallest)
    return np.asarray(scale, dtype=np.float32)
