"""Pixels that stay in 8 bits: they are codes already, or an integer convolution normalises them.

In fp32 the two operations on every pixel take a sixth of a small backbone's time beside integer
convolutions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from autocomp.targets.onnxruntime.edit import (
    attribute,
    dequantized,
    initializers,
    set_nodes,
    store,
)

LEVELS = 127
Affine = tuple[np.float32, np.uint8]
"""Scale and zero point."""


def pixel_codes(graph: GraphProto, rounded: Iterable[str]) -> dict[str, tuple[str, Affine]]:
    """The tensors of `rounded` whose 8-bit codes are the pixels: the pixels, scale and zero point.

    Those are (pixels - mean) / deviation where all channels have one whole mean and one deviation.
    """
    stored = initializers(graph)
    makers = {output: node for node in graph.node for output in node.output}
    found = {}
    for name in rounded:
        parts = _normalised(graph, makers[name], makers, stored) if name in makers else None
        if parts is not None and _is_affine(*parts[1:]):
            pixels, mean, deviation = parts
            found[name] = (pixels, (np.float32(1 / deviation[0]), np.uint8(mean[0])))
    return found


def _is_affine(mean: np.ndarray, deviation: np.ndarray) -> bool:
    is_whole = 0 <= mean[0] <= np.iinfo(np.uint8).max and mean[0] == np.round(mean[0])
    return bool(is_whole and (mean == mean[0]).all() and (deviation == deviation[0]).all())


def normalise_pixels(graph: GraphProto, rounded: Collection[str]) -> None:
    """Where a tensor of `rounded` is (pixels - mean) / deviation, let a convolution compute it.

    Mean and deviation are a channel's, pixels uint8. The depthwise 1 x 1 weights 1 / deviation have
    a scale each and are exact, the biases within 1/254 of a pixel.
    """
    stored = initializers(graph)
    makers = {output: node for node in graph.node for output in node.output}
    nodes: list[NodeProto] = []
    for node in graph.node:
        found = _normalised(graph, node, makers, stored) if node.output[0] in rounded else None
        nodes += [node] if found is None else _convolution(graph, node.output[0], *found)
    set_nodes(graph, nodes)


def _normalised(
    graph: GraphProto,
    divide: NodeProto,
    makers: Mapping[str, NodeProto],
    stored: Mapping[str, TensorProto],
) -> tuple[str, np.ndarray, np.ndarray] | None:
    """The pixels (B, C, H, W), mean (C,) and deviation (C,) that `divide` is the end of."""
    subtract = makers.get(divide.input[0])
    cast = subtract and makers.get(subtract.input[0])
    if subtract is None or cast is None:
        return None
    if (divide.op_type, subtract.op_type, cast.op_type) != ("Div", "Sub", "Cast"):
        return None
    channels = _image_channels(graph, cast.input[0], makers)
    mean = _of_channels(stored, subtract.input[1], channels)
    deviation = _of_channels(stored, divide.input[1], channels)
    if not channels or mean is None or deviation is None:
        return None
    return cast.input[0], mean, deviation


def _of_channels(stored: Mapping[str, TensorProto], name: str, channels: int) -> np.ndarray | None:
    """The values (C,) of a constant (C, 1, 1), or (1, 1, 1), that does not add channels."""
    if name not in stored or list(stored[name].dims) not in ([channels, 1, 1], [1, 1, 1]):
        return None
    return np.broadcast_to(numpy_helper.to_array(stored[name]).reshape(-1), channels)


def _image_channels(graph: GraphProto, name: str, makers: Mapping[str, NodeProto]) -> int:
    """How many channels uint8 images have that the graph is given; 0 if `name` is none of them."""
    maker, order = makers.get(name), [0, 1, 2, 3]
    if maker is not None and maker.op_type == "Transpose":
        name, order = maker.input[0], attribute(maker, "perm", order)  # type: ignore[assignment]
    for one in graph.input:
        kind = one.type.tensor_type
        if one.name == name and kind.elem_type == TensorProto.UINT8 and len(kind.shape.dim) == 4:
            return int(kind.shape.dim[order[1]].dim_value)
    return 0


def _convolution(
    graph: GraphProto, name: str, pixels: str, mean: np.ndarray, deviation: np.ndarray
) -> list[NodeProto]:
    channels = len(mean)
    scale = (1 / (LEVELS * deviation)).astype(np.float32)
    codes = np.full((channels, 1, 1, 1), LEVELS, np.int8)
    weight = dequantized(graph, f"{name}.weight", codes, scale)
    bias = dequantized(graph, f"{name}.bias", np.round(-mean * LEVELS).astype(np.int32), scale)
    whole = [
        store(graph, f"{name}.pixel", np.asarray(1, np.float32)),
        store(graph, f"{name}.black", np.asarray(0, np.uint8)),
    ]
    values = helper.make_node("DequantizeLinear", [pixels, *whole], [f"{name}.pixels"])
    inputs = [values.output[0], weight.output[0], bias.output[0]]
    return [weight, bias, values, helper.make_node("Conv", inputs, [name], group=channels)]
