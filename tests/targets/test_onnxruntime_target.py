from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small_models import (
    ConvNet,
    Mlp,
    Part,
    SmallGraph,
    Step,
    compress,
    conv_graph,
    in_torch,
    mlp_graph,
    step_graph,
)
from torch import Tensor, nn

from autocomp.compress.formats import Compressed
from autocomp.compress.quantize import quantize_
from autocomp.errors import CheckpointError
from autocomp.rounding import Quantize
from autocomp.targets import load_target
from autocomp.targets.base import Artifact
from autocomp.targets.onnxruntime import target

INT8_ACTIVATION_ERROR = 0.03
EXACT = 1e-5


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def graph_of(artifact: Artifact) -> onnx.GraphProto:
    (path,) = artifact.files
    return onnx.load(str(path)).graph


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 32])
@pytest.mark.parametrize(
    ("activation_bits", "tolerance"),
    [pytest.param(8, INT8_ACTIVATION_ERROR, id="int8"), pytest.param(32, EXACT, id="fp32")],
)
@pytest.mark.parametrize("leading", [(3, 1), (3,)], ids=["matmul", "gemm"])
def test_linear_layers_compute_with_the_dequantised_weights(
    bits: int,
    activation_bits: int,
    tolerance: float,
    leading: tuple[int, ...],
    tmp_path: Path,
    random: np.random.Generator,
) -> None:
    compressed = compress(Mlp(), bits, activation_bits=activation_bits)
    graphs = {"mlp": mlp_graph(compressed.module, leading)}
    artifact = target.lower(graphs, compressed, tmp_path)
    x = random.standard_normal((*leading, 40), np.float32)
    (wanted,) = in_torch(compressed.module, x)
    found = target.open(artifact)("mlp", x=x)
    assert list(found) == ["y"]
    assert relative_error(found["y"], wanted) < (EXACT if bits == 32 else tolerance)
    assert bool(artifact.skipped) == (activation_bits == 8 and bits in (3, 5, 6))


@pytest.mark.parametrize("group_size", [16, 32, 64, 128])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("width", [64, 40], ids=["whole_groups", "padded_groups"])
def test_embeddings_share_their_bytes_with_a_tied_head(
    bits: int, group_size: int, width: int, tmp_path: Path, random: np.random.Generator
) -> None:
    compressed = compress(Step(301, width), bits, group_size)
    artifact = target.lower({"step": step_graph(compressed.module)}, compressed, tmp_path)
    token, past = np.array([[4], [300]]), random.standard_normal((2, 5, width), np.float32)
    found = target.open(artifact)("step", token=token, past=past)
    for name, wanted in zip(
        ("logits", "new"), in_torch(compressed.module, token, past), strict=True
    ):
        assert relative_error(found[name], wanted) < INT8_ACTIVATION_ERROR
    groups = -(-width // group_size)
    packed = 301 * groups * (group_size * bits // 8 + 2)
    graph = graph_of(artifact)
    stored = [tensor for tensor in graph.initializer if 301 in tensor.dims]
    assert sum(len(tensor.raw_data) for tensor in stored) == packed
    assert [node.op_type for node in graph.node].count("GatherBlockQuantized") == 1


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_the_file_holds_the_weights_at_their_width_and_little_else(
    bits: int, tmp_path: Path
) -> None:
    compressed = compress(Step(1000, 256), bits)
    artifact = target.lower({"step": step_graph(compressed.module)}, compressed, tmp_path)
    weights = 1000 * 256 + 256 * 256
    scale_bytes = 0 if bits == 32 else 2 * weights // 32
    expected = weights * bits // 8 + scale_bytes + 3 * 256 * 4
    assert expected < artifact.size_bytes < expected + 6000
    assert artifact.size_bytes == (tmp_path / "step.onnx").stat().st_size
    assert artifact.size_mb == artifact.size_bytes / 1e6


@pytest.mark.parametrize("bits", [4, 8])
def test_an_example_does_not_depend_on_its_neighbours(
    bits: int, tmp_path: Path, random: np.random.Generator
) -> None:
    compressed = compress(Mlp(), bits)
    run = target.open(target.lower({"mlp": mlp_graph(compressed.module)}, compressed, tmp_path))
    x = random.standard_normal((16, 1, 40), np.float32)
    x[3] *= 100
    together = run("mlp", x=x)["y"]
    alone = np.concatenate([run("mlp", x=one[None])["y"] for one in x])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)
    assert (together.argmax(-1) == alone.argmax(-1)).all()


def test_convolutions_take_in_their_norms_and_agree_with_torch(
    tmp_path: Path, random: np.random.Generator
) -> None:
    compressed = compress(ConvNet(), 32)
    artifact = target.lower({"encoder": conv_graph(compressed.module)}, compressed, tmp_path)
    images = random.integers(0, 256, (2, 16, 16, 3), np.uint8)
    found = target.open(artifact)("encoder", images=images)["y"]
    np.testing.assert_allclose(found, in_torch(compressed.module, images)[0], atol=1e-4)
    graph = graph_of(artifact)
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    assert not any("running" in tensor.name for tensor in graph.initializer)


def test_lowering_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = ConvNet().eval()
    model.norm2.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    target.lower({"encoder": conv_graph(model)}, Compressed(model), tmp_path)
    assert [name for name, part in model.named_modules() if part.training] == ["norm2"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_stored_tensors_bear_the_names_of_the_model(tmp_path: Path) -> None:
    compressed = compress(Mlp(), 4, only=["up.weight"])
    artifact = target.lower({"mlp": mlp_graph(compressed.module)}, compressed, tmp_path)
    names = {tensor.name for tensor in graph_of(artifact).initializer}
    assert {"down.weight", "head.bias", "up.weight.codes", "up.weight.scales"} <= names
    assert "up.weight" not in names


def test_equal_tensors_are_stored_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    model[1].load_state_dict(model[0].state_dict())
    graph = SmallGraph(TupleOf(model), {"x": torch.zeros(1, 1, 64)}, ("y",))
    artifact = target.lower({"twice": graph}, compress(model, 8), tmp_path)
    assert artifact.size_bytes < 64 * 64 * 1.5
    x = np.ones((1, 1, 64), np.float32)
    wanted = model(torch.from_numpy(x)).detach().numpy()
    found = target.open(artifact)("twice", x=x)["y"]
    assert relative_error(found, wanted) < INT8_ACTIVATION_ERROR


class TupleOf(Part):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (self.inner(*inputs),)


class Bilinear(nn.Module):
    """Reads a weight in a way that no packed kernel computes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(32, 32))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x @ self.weight,)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_a_weight_without_a_kernel_is_widened_at_load_and_named(
    bits: int, tmp_path: Path, random: np.random.Generator
) -> None:
    compressed = compress(Bilinear(), bits)
    graph = SmallGraph(Part(compressed.module), {"x": torch.zeros(2, 1, 32)}, ("y",))
    artifact = target.lower({"part": graph}, compressed, tmp_path)
    assert artifact.skipped == (
        f"part: weight: {bits} bits have no kernel where MatMul reads them, "
        f"so these weights are stored in {bits} bits and computed in fp32",
    )
    assert artifact.computed_bits == {"weight": 32}
    assert not any(tensor.name == "weight" for tensor in graph_of(artifact).initializer)
    x = random.standard_normal((2, 1, 32), np.float32)
    found = target.open(artifact)("part", x=x)["y"]
    assert relative_error(found, in_torch(compressed.module, x)[0]) < EXACT


@pytest.mark.parametrize(("bits", "computed_bits"), [(3, 4), (5, 8), (6, 8)])
def test_a_width_without_a_kernel_is_computed_at_the_next_and_named(
    bits: int, computed_bits: int, tmp_path: Path
) -> None:
    compressed = compress(Mlp(), bits, only=["up.weight"])
    artifact = target.lower({"mlp": mlp_graph(compressed.module)}, compressed, tmp_path)
    (line,) = artifact.skipped
    assert line == (
        f"mlp: up.weight: {bits} bits have no kernel that is fast, so these weights are stored in "
        f"{bits} bits and computed in {computed_bits}"
    )
    assert artifact.computed_bits == {"up.weight": computed_bits}


def test_a_convolution_of_few_bits_is_computed_in_eight_and_named(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()).eval()
    compressed = Compressed(model)
    quantize_(compressed, Quantize(layers="**", bits=3))
    graph = SmallGraph(Part(model), {"x": torch.zeros(1, 8, 6, 6)}, ("y",))
    artifact = target.lower(
        {"net": graph},
        compressed,
        tmp_path,
        drive=lambda run: run("net", x=np.ones((1, 8, 6, 6), np.float32)),
    )
    assert artifact.skipped == (
        "net: 0.weight: 3 bits have no kernel that is fast, so these weights are stored in 3 bits "
        "and computed in 8",
    )


@pytest.mark.parametrize("outputs", [1, 7])
def test_a_small_weight_is_no_length(outputs: int, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(1, outputs)).eval()
    compressed = Compressed(model)
    quantize_(compressed, Quantize(layers="**", bits=8))
    graph = SmallGraph(Part(model), {"x": torch.zeros(1, 1)}, ("y",))
    artifact = target.lower({"net": graph}, compressed, tmp_path)
    assert artifact.skipped == ()
    assert artifact.computed_bits == {"0.weight": 8}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99, 0.999])
def test_a_truncated_file_is_one_readable_line(share: float, tmp_path: Path) -> None:
    model = Mlp()
    artifact = target.lower({"mlp": mlp_graph(model)}, Compressed(model), tmp_path)
    (path,) = artifact.files
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"mlp.onnx: must be a whole ONNX file") as caught:
        target.open(artifact)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_missing_graph_are_named(tmp_path: Path) -> None:
    model = Mlp()
    artifact = target.lower({"mlp": mlp_graph(model)}, Compressed(model), tmp_path)
    with pytest.raises(CheckpointError, match=r"graph: must be one of mlp, but got 'mlq'.*'mlp'"):
        target.open(artifact)("mlq")
    artifact.files[0].unlink()
    with pytest.raises(CheckpointError, match="there is none"):
        target.open(artifact)


def test_the_runtime_names_its_versions() -> None:
    assert set(load_target("onnxruntime").versions()) == {"onnx", "onnxruntime"}


def test_half_precision_is_stored_in_two_bytes_and_computed_in_single(
    tmp_path: Path, random: np.random.Generator
) -> None:
    module = Mlp().eval()
    dense = target.lower({"mlp": mlp_graph(module, (3,))}, Compressed(module), tmp_path / "dense")
    names = {name for name, one in module.named_parameters() if one.ndim == 2}
    with torch.no_grad():
        for name in names:
            module.get_parameter(name).copy_(module.get_parameter(name).half())
    compressed = Compressed(module, halved=names)
    artifact = target.lower({"mlp": mlp_graph(module, (3,))}, compressed, tmp_path / "half")
    x = random.standard_normal((3, 40), np.float32)
    (wanted,) = in_torch(module, x)
    assert relative_error(target.open(artifact)("mlp", x=x)["y"], wanted) < EXACT
    types = {one.data_type for one in graph_of(artifact).initializer if len(one.dims) == 2}
    assert types == {onnx.TensorProto.FLOAT16}
    saved = sum(2 * module.get_parameter(name).numel() for name in names) / 1e6
    assert dense.size_mb - artifact.size_mb == pytest.approx(saved, abs=1e-3)
