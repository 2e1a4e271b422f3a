"""Codes of few bits, stored as such and widened by the runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from autocomp.targets.onnxruntime.narrow import store_narrow


@pytest.mark.parametrize("shape", [(1,), (3, 5, 1, 1), (16, 8), (7, 3, 3, 3)], ids=str)
@pytest.mark.parametrize("bits", range(2, 7))
def test_codes_come_back_from_as_few_bytes(bits: int, shape: tuple[int, ...]) -> None:
    zero = 2 ** (bits - 1)
    codes = np.random.default_rng(bits).integers(-zero, zero, shape)
    graph = helper.make_graph(
        [], "g", [], [helper.make_tensor_value_info("codes", TensorProto.INT8, shape)]
    )
    graph.node.extend(store_narrow(graph, "codes", codes, bits))
    packed = [one for one in graph.initializer if one.name.endswith(".packed")]
    assert sum(np.prod(one.dims) for one in packed) == -(-codes.size // 8) * bits
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {})
    assert found.dtype == np.int8
    assert np.array_equal(found, codes)
