"""Codes stored in fewer bits than any kernel reads, and widened when ONNX Runtime loads the file.

The widening nodes have constant inputs only, so they run once, before the first inference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from autocomp.compress.formats import QuantizedTensor
from autocomp.targets.onnxruntime.edit import store

MOST_BITS = 6
"""Wider codes take a byte each."""
PARTS = {2: (2,), 3: (1, 2), 4: (4,), 5: (1, 4), 6: (2, 4)}
"""Bits of a code -> the widths of the parts it is stored in, the lowest first."""
Link = tuple[str, list[str], dict[str, Any]]
"""A node that reads the result of the one before it: its kind, its constants, its attributes."""


def store_narrow(graph: GraphProto, name: str, codes: np.ndarray, bits: int) -> list[NodeProto]:
    """Store signed `codes` of at most 6 bits; the nodes that compute them as int8 tensor `name`.

    The codes of a row span no more than 2^bits, though they need not be centred.
    """
    zero, whole = _zero(codes, bits), f"{name}.whole"
    nodes = unpacked(graph, whole, (codes.astype(np.int16) + zero).astype(np.uint8), bits)
    links: list[Link] = [
        ("Cast", [], {"to": TensorProto.INT8}),
        ("Sub", [store(graph, f"{name}.zero", zero.astype(np.int8))], {}),
    ]
    return [*nodes, *chain(name, links, whole)]


def store_bytes(
    graph: GraphProto, name: str, codes: np.ndarray, bits: int, kernel_bits: int, shift: int
) -> list[NodeProto]:
    """Store codes (rows, groups, size) of at most 6 bits; the nodes that compute `name`.

    That is what a kernel of `kernel_bits` reads, uint8 (rows, groups, bytes): the codes plus
    `shift`, several to a byte, the first lowest.
    """
    together = 8 // kernel_bits
    rows, groups, size = codes.shape
    # all first codes of a byte, then all second ones: they are put together without a transposition
    apart = codes.reshape(-1, together).T
    nodes = unpacked(graph, f"{name}.unpacked", apart, bits)
    moved = store(graph, f"{name}.shift", np.array(shift, np.uint8))
    nodes.append(helper.make_node("Add", [f"{name}.unpacked", moved], [f"{name}.moved"]))
    parts = [f"{name}.part{place}" for place in range(together)]
    nodes.append(helper.make_node("Split", [f"{name}.moved"], parts, axis=0))
    total = parts[0]
    for place, part in enumerate(parts[1:], 1):
        weight = store(graph, f"{part}.weight", np.array(2 ** (kernel_bits * place), np.uint8))
        nodes.append(helper.make_node("Mul", [part, weight], [f"{part}.high"]))
        nodes.append(helper.make_node("Add", [total, f"{part}.high"], [f"{part}.sum"]))
        total = f"{part}.sum"
    shape = store(graph, f"{name}.bytes_shape", np.array([rows, groups, size // together]))
    return [*nodes, helper.make_node("Reshape", [total, shape], [name])]


def store_values(
    graph: GraphProto, name: str, tensor: QuantizedTensor, factor: np.ndarray
) -> list[NodeProto]:
    """Store a weight's codes and scales; the nodes that compute its fp32 values as tensor `name`.

    `factor` is what a folded norm multiplied each row by, (rows, 1), or 1.
    """
    shape = tensor.codes.shape
    groups, size = tensor.format.groups(shape)
    codes = np.zeros((shape[0], groups * size), np.uint8)
    codes[:, : math.prod(shape[1:])] = tensor.codes.flatten(1).cpu().numpy()
    constants = _scales_and_zeros(tensor, factor) | {
        "grouped": np.array([shape[0], groups, size]),
        "padded_shape": np.array([shape[0], groups * size]),
        "start": np.array([0]),
        "end": np.array([math.prod(shape[1:])]),
        "last": np.array([1]),
        "own_shape": np.array(shape),
    }
    held = {key: store(graph, f"{name}.{key}", value) for key, value in constants.items()}
    to_float: Link = ("Cast", [], {"to": TensorProto.FLOAT})
    sides = [
        node
        for key in ("scales", "zeros")
        for node in chain(f"{name}.{key}_fp32", [to_float], held[key])
    ]
    links = [
        to_float,
        ("Reshape", [held["grouped"]], {}),
        ("Sub", [f"{name}.zeros_fp32"], {}),
        ("Mul", [f"{name}.scales_fp32"], {}),
        ("Reshape", [held["padded_shape"]], {}),
        ("Slice", [held["start"], held["end"], held["last"]], {}),
        ("Reshape", [held["own_shape"]], {}),
    ]
    whole, nodes = store_codes(graph, name, codes, tensor.format.bits)
    return [*sides, *nodes, *chain(name, links, whole)]


def _scales_and_zeros(tensor: QuantizedTensor, factor: np.ndarray) -> dict[str, np.ndarray]:
    """Both (rows, groups, 1), or so that they spread to it."""
    scales = tensor.scales.cpu().numpy()
    if np.any(factor != 1):
        scales = scales.astype(np.float32) * factor
    zeros = np.array([tensor.format.zero_point], np.uint8)
    if tensor.zeros is not None:
        zeros = tensor.zeros.cpu().numpy()
    return {"scales": scales[..., None], "zeros": zeros[..., None]}


def store_codes(
    graph: GraphProto, name: str, codes: np.ndarray, bits: int
) -> tuple[str, list[NodeProto]]:
    """Store unsigned `codes` in `bits`; the tensor that has them whole, and what computes it."""
    if bits > MOST_BITS:
        return store(graph, f"{name}.codes", codes), []
    return f"{name}.whole", unpacked(graph, f"{name}.whole", codes, bits)


def unpacked(graph: GraphProto, name: str, codes: np.ndarray, bits: int) -> list[NodeProto]:
    """Store unsigned `codes` of at most 6 bits; the nodes that compute them as uint8 tensor `name`.

    Their upper and lower bits are stored apart, in widths of which bytes hold whole ones: all of it
    computes in bytes, for ONNX Runtime keeps what it computes at load until all of it is computed.
    """
    padded = np.zeros(-(-codes.size // 8) * 8, np.uint8)
    padded[: codes.size] = codes.reshape(-1)
    nodes: list[NodeProto] = []
    low, total = 0, ""
    for width in PARTS[bits]:
        part = f"{name}.bits{low}"
        nodes += _part(graph, part, (padded >> low) % 2**width, width, 2**low)
        if total:
            nodes.append(helper.make_node("Add", [total, part], [f"{part}.sum"]))
        total, low = f"{part}.sum" if total else part, low + width
    ends = [np.array([0]), np.array([codes.size])]
    held = [
        store(graph, f"{name}.{key}", one)
        for key, one in zip(("first", "count"), ends, strict=True)
    ]
    shape = store(graph, f"{name}.shape", np.array(codes.shape))
    links: list[Link] = [("Slice", held, {}), ("Reshape", [shape], {})]
    return [*nodes, *chain(name, links, total)]


def _part(
    graph: GraphProto, name: str, codes: np.ndarray, width: int, weight: int
) -> list[NodeProto]:
    """Store codes of 1, 2 or 4 bits; the nodes that compute them, flat, times `weight`."""
    places = np.arange(0, 8, width, dtype=np.uint8)
    stored = np.bitwise_or.reduce(codes.reshape(-1, 8 // width) << places, axis=1, keepdims=True)
    constants = {
        "packed": stored.astype(np.uint8),
        "places": places,
        "levels": np.array(2**width, np.uint8),
        "weight": np.array(weight, np.uint8),
        "flat": np.array([-1]),
    }
    held = {key: store(graph, f"{name}.{key}", value) for key, value in constants.items()}
    links: list[Link] = [
        ("BitShift", [held["places"]], {"direction": "RIGHT"}),
        ("Mod", [held["levels"]], {}),
        ("Mul", [held["weight"]], {}),
        ("Reshape", [held["flat"]], {}),
    ]
    return chain(name, links, held["packed"])


def _zero(codes: np.ndarray, bits: int) -> np.ndarray:
    """What makes signed `codes` unsigned: the middle, or where rows lie aside each its own."""
    middle = 2 ** (bits - 1)
    if codes.min() >= -middle and codes.max() < middle:
        return np.array(middle)
    rows = codes.reshape(len(codes), -1)
    return np.asarray(-rows.min(axis=1).astype(np.int64).reshape(-1, *[1] * (codes.ndim - 1)))


def chain(name: str, links: Sequence[Link], source: str | None = None) -> list[NodeProto]:
    """Nodes each of which reads the one before; the first reads `source`, the last is `name`."""
    nodes: list[NodeProto] = []
    for place, (kind, constants, attributes) in enumerate(links):
        before = [f"{name}.{place - 1}"] if place else [source] if source else []
        output = name if place == len(links) - 1 else f"{name}.{place}"
        nodes.append(helper.make_node(kind, [*before, *constants], [output], **attributes))
    return nodes
