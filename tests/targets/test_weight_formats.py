"""Every format of a weight: the file computes with its values, and stores them in its bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from small_models import ConvNet, Part, SmallGraph, compress, conv_graph, in_torch
from torch import Tensor, nn

from autocomp.checkpoint.packing import describe, records
from autocomp.compress.formats import Compressed, LayerFormat, quantize_tensor
from autocomp.targets.base import Artifact, Run
from autocomp.targets.onnxruntime import target

EXACT = 1e-5
BITS = [2, 3, 4, 5, 6, 8]
FORMATS: dict[str, dict[str, Any]] = {
    "group of 16": {"group_size": 16},
    "group of 64, affine": {"group_size": 64, "affine": True},
    "channel": {"group_size": None},
    "channel, affine": {"group_size": None, "affine": True},
    "tensor, affine": {"group_size": None, "per_tensor": True, "affine": True},
}


class Table(nn.Module):
    """An embedding and a linear layer, neither of a width that groups divide."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(70, 72)
        self.linear = nn.Linear(72, 33)

    def forward(self, words: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.embedding(words), self.linear(x)


def whole_activations(random: np.random.Generator) -> np.ndarray:
    """Activations that int8 holds exactly, whatever inputs share a scale."""
    x = random.integers(-126, 127, (3, 1, 72)).astype(np.float32)
    x[..., ::8] = 127
    return x


def lower(compressed: Compressed, folder: Path) -> Artifact:
    inputs = {"words": torch.zeros(2, dtype=torch.long), "x": torch.zeros(3, 1, 72)}
    graph = SmallGraph(Part(compressed.module), inputs, ("rows", "y"))
    return target.lower({"table": graph}, compressed, folder)


def stored_bytes(artifact: Artifact, ending: str) -> int:
    graph = onnx.load(str(artifact.files[0])).graph
    return sum(len(one.raw_data) for one in graph.initializer if one.name.endswith(ending))


@pytest.mark.parametrize("fields", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("bits", BITS)
def test_kernels_compute_with_the_values_of_the_codes(
    bits: int, fields: dict[str, Any], tmp_path: Path, random: np.random.Generator
) -> None:
    torch.manual_seed(bits)
    compressed = compress(Table(), bits, **fields)
    artifact = lower(compressed, tmp_path)
    words, x = np.array([3, 69]), whole_activations(random)
    found = target.open(artifact)("table", words=words, x=x)
    rows, y = in_torch(compressed.module, words, x)
    np.testing.assert_array_equal(found["rows"], rows)
    np.testing.assert_allclose(found["y"], y, rtol=EXACT, atol=EXACT * np.abs(y).max())
    kernels = {node.op_type for node in onnx.load(str(artifact.files[0])).graph.node}
    assert {"MatMulNBits", "GatherBlockQuantized"} <= kernels


@pytest.mark.parametrize("bits", BITS)
def test_no_weight_takes_more_than_its_bits(bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    compressed = compress(Table(), bits, 128)
    artifact = lower(compressed, tmp_path)
    ending = ".packed" if bits in (3, 5, 6) else ".codes"
    padded = (70 + 33) * 128  # a row of 72 weights fills a group of 128
    assert stored_bytes(artifact, ending) == pytest.approx(padded * bits / 8, abs=8)


@pytest.mark.parametrize("fields", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("bits", [3, 8])
def test_weights_alone_are_widened_when_the_file_is_loaded(
    bits: int, fields: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(bits)
    model = ConvNet().eval()
    with torch.no_grad():
        model.norm.weight[3] = -0.7  # a norm that is folded may turn a channel's signs
    compressed = Compressed(model)
    how = LayerFormat(bits=bits, activation_bits=32, **fields)
    for name in ("conv.weight", "depthwise.weight", "head.weight"):
        compressed.store_(name, quantize_tensor(model.get_parameter(name), how))
    artifact = target.lower({"net": conv_graph(model)}, compressed, tmp_path)
    assert artifact.skipped == ()
    assert artifact.computed_bits == dict.fromkeys(compressed.quantized, 32)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    (wanted,) = in_torch(model, images)
    found = target.open(artifact)("net", images=images)["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    names = {one.name for one in onnx.load(str(artifact.files[0])).graph.initializer}
    assert not {"conv.weight", "depthwise.weight", "head.weight"} & names


@pytest.mark.parametrize("affine", [False, True], ids=["symmetric", "affine"])
@pytest.mark.parametrize("per_tensor", [False, True], ids=["channel", "tensor"])
@pytest.mark.parametrize("bits", [2, 3, 5])
def test_integer_convolutions_compute_with_the_values_of_the_codes(
    bits: int, per_tensor: bool, affine: bool, tmp_path: Path
) -> None:
    torch.manual_seed(bits)
    model = ConvNet().eval()
    with torch.no_grad():
        model.norm.weight[3] = -0.7
    compressed = Compressed(model)
    how = LayerFormat(bits=bits, affine=affine, per_tensor=per_tensor, ranges="minmax")
    for name in ("conv.weight", "depthwise.weight"):
        compressed.store_(name, quantize_tensor(model.get_parameter(name), how))
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)

    def drive(run: Run) -> None:
        run("net", images=images)

    artifact = target.lower({"net": conv_graph(model)}, compressed, tmp_path, drive=drive)
    (wanted,) = in_torch(model, images)
    found = target.open(artifact)("net", images=images)["y"]
    assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()
    assert artifact.computed_bits == dict.fromkeys(compressed.quantized, 8)


@pytest.mark.parametrize(
    ("bits", "fields", "computed"),
    [
        (3, {"group_size": 32}, 4),
        (2, {"group_size": 16}, 4),
        (2, {"group_size": None}, 2),
        (6, {"group_size": 32}, 8),
        (4, {"activation_bits": 32}, 32),
    ],
    ids=lambda one: str(one),
)
def test_the_width_a_weight_is_computed_in_is_known(
    bits: int, fields: dict[str, Any], computed: int, tmp_path: Path
) -> None:
    compressed = compress(Table(), bits, **fields)
    found = lower(compressed, tmp_path).computed_bits
    assert found == dict.fromkeys(["embedding.weight", "linear.weight"], computed)
    stored = {one.name: one.computed_bits for one in records(describe(compressed, found)).tensors}
    assert stored == dict(found) | {"linear.bias": 32}


@pytest.mark.parametrize("bits", BITS)
def test_capabilities_are_what_files_compute_in(bits: int, tmp_path: Path) -> None:
    known = target.capabilities()
    found = lower(compress(Table(), bits), tmp_path / "table").computed_bits
    assert found == {
        "embedding.weight": known["embedding"][bits],
        "linear.weight": known["linear"][bits],
    }
    model = ConvNet().eval()
    compressed = Compressed(model)
    how = LayerFormat(bits=bits, ranges="minmax")
    compressed.store_("conv.weight", quantize_tensor(model.conv.weight, how))
    images = np.zeros((1, 16, 16, 3), np.uint8)
    graphs = {"net": conv_graph(model)}
    artifact = target.lower(
        graphs, compressed, tmp_path / "net", drive=lambda run: run("net", images=images)
    )
    assert artifact.computed_bits == {"conv.weight": known["convolution"][bits]}


def test_a_weight_that_is_not_all_read_by_kernels_computes_in_the_widest(tmp_path: Path) -> None:
    class Twice(Table):
        """Its table is looked up and multiplied by from the wrong side."""

        def forward(self, words: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.embedding(words) @ self.linear.weight.T, self.linear(x) @ self.linear.weight

    compressed = compress(Twice(), 4)
    artifact = lower(compressed, tmp_path)
    assert artifact.computed_bits == {"embedding.weight": 4, "linear.weight": 32}


class Standardised(nn.Conv2d):
    """A convolution that computes with what it makes of its weight, as weight-standardised nets."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias, padding=1)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_convolution_that_computes_its_weight_needs_no_ranges(bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ConvNet().eval()
    model.conv, model.depthwise = Standardised(3, 8, 3, bias=False), Standardised(8, 8, 3)
    compressed = Compressed(model)
    how = LayerFormat(bits=bits, ranges="minmax")
    for name in ("conv.weight", "depthwise.weight"):
        compressed.store_(name, quantize_tensor(model.get_parameter(name), how))
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    artifact = target.lower({"net": conv_graph(model)}, compressed, tmp_path)
    (wanted,) = in_torch(model, images)
    found = target.open(artifact)("net", images=images)["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    assert artifact.computed_bits == dict.fromkeys(compressed.quantized, 32)
    assert all(f"stored in {bits} bits and computed in fp32" in line for line in artifact.skipped)
    assert len(artifact.skipped) == 2


class Attending(nn.Module):
    """PyTorch's own attention, as torchvision's vision transformers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 2, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.attention(x, x, x, need_weights=False)[0],)


@pytest.mark.parametrize("bits", [32, 8, 4, 2])
def test_attention_of_pytorchs_own_is_lowered_at_its_widths(
    bits: int, tmp_path: Path, random: np.random.Generator
) -> None:
    compressed = compress(Attending(), bits, activation_bits=32)
    inputs = {"x": torch.zeros(1, 5, 32)}
    graph = SmallGraph(Part(compressed.module), inputs, ("y",), {"x": {0: "batch"}})
    artifact = target.lower({"net": graph}, compressed, tmp_path)
    x = random.standard_normal((3, 5, 32), dtype=np.float32)
    (wanted,) = in_torch(compressed.module, x)
    found = target.open(artifact)("net", x=x)["y"]
    np.testing.assert_allclose(found, wanted, rtol=EXACT, atol=EXACT)
    coded = {"attention.in_proj_weight", "attention.out_proj.weight"} if bits < 32 else set()
    assert artifact.computed_bits == dict.fromkeys(coded, 32)
    assert torch.backends.mha.get_fastpath_enabled()
