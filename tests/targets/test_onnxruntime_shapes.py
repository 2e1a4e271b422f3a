from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from small_models import Part, SmallGraph, in_torch
from torch import Tensor, nn

from autocomp.targets.onnxruntime.export import export
from autocomp.targets.onnxruntime.shapes import Dims, copying_shape


class Heads(nn.Module):
    """Splits into heads by lengths read at run time, attends, and joins them again."""

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], -1, 4, x.shape[-1] // 4).transpose(1, 2)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        keys = torch.cat([past, self.split(x)], 2)  # (B, h, T, dh)
        mixed = nn.functional.scaled_dot_product_attention(self.split(x), keys, keys)
        return mixed.transpose(1, 2).flatten(2), keys


@pytest.mark.parametrize(("batch", "time"), [(1, 0), (1, 1), (3, 7)])
def test_attention_computes_no_shapes_and_still_takes_any_batch_and_length(
    batch: int, time: int, random: np.random.Generator
) -> None:
    model = Heads()
    graph = SmallGraph(
        Part(model),
        {"x": torch.zeros(1, 1, 32), "past": torch.zeros(1, 4, 2, 8)},
        ("y", "keys"),
        {"x": {0: "batch"}, "past": {0: "batch", 2: "time"}, "keys": {0: "batch", 2: "time"}},
    )
    proto = export("heads", graph, model)
    onnx.checker.check_model(proto)
    assert not {"Shape", "Gather", "Unsqueeze"} & {node.op_type for node in proto.graph.node}
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = random.standard_normal((batch, 1, 32), np.float32)
    past = random.standard_normal((batch, 4, time, 8), np.float32)
    found = session.run(None, {"x": x, "past": past})
    for one, wanted in zip(found, in_torch(model, x, past), strict=True):
        np.testing.assert_allclose(one, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("before", "after", "target"),
    [
        pytest.param(("b", "t", 32), ("b", "t", 4, 8), [0, 0, 4, 8], id="split"),
        pytest.param(("b", 4, 8, "t"), ("b", 32, "t"), [0, 32, -1], id="rest"),
        pytest.param(("b", "t", 4, 8), ("b", "t", 32), [0, 0, 32], id="join"),
        pytest.param(("b", "t", 8), ("u", 8), [-1, 8], id="flatten"),
        pytest.param(("b", "t", 8), (None, 8), [-1, 8], id="unknown"),
        pytest.param(("b", "t", 8), ("u", "v"), None, id="two_unknown"),
        pytest.param(("b", "t", 8), ("u", "t", 4), None, id="rest_beside_a_cache"),
        pytest.param(("b", 0), (0, "b"), None, id="empty"),
    ],
)
def test_a_shape_is_constant_if_at_most_one_length_is_left_over(
    before: Dims, after: Dims, target: list[int] | None
) -> None:
    assert copying_shape(before, after) == target
