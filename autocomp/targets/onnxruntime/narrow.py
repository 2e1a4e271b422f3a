"""Codes stored in fewer bits than any kernel reads, and widened when ONNX Runtime loads the file.

The widening nodes have constant inputs only, so they run once, before the first inference.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from autocomp.targets.onnxruntime.edit import store

CODES_A_WORD = 8
"""A word of 8 codes has as many bytes as a code has bits: at most 6, for ONNX Runtime computes some
of int64 in double precision, which holds 53 bits."""


def store_narrow(graph: GraphProto, name: str, codes: np.ndarray, bits: int) -> list[NodeProto]:
    """Store signed `codes` of at most 6 bits; the nodes that compute them as int8 tensor `name`.

    A word is the sum of its codes times 2^(bits i), and of its bytes times 2^(8 j).
    """
    zero = 2 ** (bits - 1)
    constants = {
        "words": _words((codes.astype(np.int16) + zero).astype(np.uint8), bits),
        "bytes": 2 ** (8 * np.arange(bits, dtype=np.int64)),
        "axis": np.array([1]),
        "places": 2 ** (bits * np.arange(CODES_A_WORD, dtype=np.int64)),
        "levels": np.array(2**bits),
        "flat": np.array([-1]),
        "first": np.array([0]),
        "count": np.array([codes.size]),
        "rows": np.array([0]),
        "shape": np.array(codes.shape),
        "zero": np.array(zero),
    }
    held = {key: store(graph, f"{name}.{key}", value) for key, value in constants.items()}
    chain = [
        ("Cast", ["words"], {"to": TensorProto.INT64}),
        ("Mul", ["bytes"], {}),
        ("ReduceSum", ["axis"], {"keepdims": 1}),
        ("Div", ["places"], {}),
        ("Mod", ["levels"], {}),
        ("Reshape", ["flat"], {}),
        ("Slice", ["first", "count", "rows"], {}),
        ("Reshape", ["shape"], {}),
        ("Sub", ["zero"], {}),
        ("Cast", [], {"to": TensorProto.INT8}),
    ]
    nodes: list[NodeProto] = []
    for place, (kind, inputs, attributes) in enumerate(chain):
        before = [f"{name}.{place - 1}"] if place else []
        output = name if place == len(chain) - 1 else f"{name}.{place}"
        names = [*before, *(held[key] for key in inputs)]
        nodes.append(helper.make_node(kind, names, [output], **attributes))
    return nodes


def _words(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes of any shape as (words, bits) bytes, the first code lowest."""
    flat = np.zeros(-(-codes.size // CODES_A_WORD) * CODES_A_WORD, np.uint8)
    flat[: codes.size] = codes.reshape(-1)
    ones = np.unpackbits(flat[:, None], axis=1, count=bits, bitorder="little")  # (codes, bits)
    return np.packbits(ones, bitorder="little").reshape(-1, bits)
