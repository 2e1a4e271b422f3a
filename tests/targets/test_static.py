"""Convolutions in 8 bits: the integer kernels run, and compute nearly the same."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from small_models import ConvNet, SmallGraph, conv_graph
from torch import Tensor, nn

from autocomp.compress.formats import Compressed
from autocomp.compress.quantize import quantize_
from autocomp.compress.ranges import RANGES
from autocomp.errors import CheckpointError
from autocomp.policy import Quantize
from autocomp.targets.base import Run
from autocomp.targets.onnxruntime import target

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)


class Residual(nn.Module):
    """A convolution beside a skip, as in ResNets and inverted bottlenecks; SAME padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        nn.init.uniform_(self.norm.weight, -1.5, 1.5)  # a negative scale turns a channel's codes
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        x = images.permute(0, 3, 1, 2).float() / 255
        height, width = x.shape[-2:]
        x = torch.relu(self.stem(nn.functional.pad(x, (0, width % 2 + 1, 0, height % 2 + 1))))
        x = torch.relu(x + self.norm(self.conv(x)))
        return (self.last(x).flatten(1),)


class Channelled(nn.Module):
    """A network on pixels that come as images do."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.net(images.permute(0, 3, 1, 2).float() / 255).flatten(1),)


def eight_bits(model: nn.Module, ranges: str = "mse") -> Compressed:
    compressed = Compressed(model.eval())
    quantize_(compressed, Quantize.model_validate({"layers": "**", "bits": 8, "ranges": ranges}))
    for name in [name for name, tensor in compressed.quantized.items() if tensor.codes.ndim < 4]:
        del compressed.quantized[name]
    return compressed


def drive(run: Run) -> None:
    for start in range(0, len(IMAGES), 4):
        run("net", images=IMAGES[start : start + 4])


def kernels(path: Path, folder: Path) -> Counter[str]:
    """The nodes that are left once ONNX Runtime has fused what it can."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def graph_of(model: nn.Module) -> dict[str, SmallGraph]:
    return {"net": conv_graph(model)}


@pytest.mark.parametrize("ranges", RANGES)
@pytest.mark.parametrize("kind", [ConvNet, Residual])
def test_integer_kernels_compute_nearly_the_same(
    kind: type[nn.Module], ranges: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = kind()
    dense = target.lower(graph_of(model.eval()), Compressed(model), tmp_path / "dense")
    expected = target.open(dense)("net", images=IMAGES)["y"]
    compressed = eight_bits(model, ranges)
    artifact = target.lower(graph_of(model), compressed, tmp_path / "int8", drive=drive)
    found = target.open(artifact)("net", images=IMAGES)["y"]
    assert np.abs(found - expected).mean() < 0.03 * np.abs(expected - expected.mean(0)).mean() + (
        0.02 * np.abs(expected).mean()
    )
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    counted = kernels(artifact.files[0], tmp_path)
    assert counted["QLinearConv"] == convolutions
    assert not {"Conv", "Relu", "Clip", "Pad"} & set(counted), counted


class Extremes(nn.Module):
    """A layer of nothing but its largest weights, on pixels of nothing but the largest values."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.spread = nn.Conv2d(3, layer.in_channels, 1, bias=False)
        self.layer = layer
        signs = torch.ones_like(layer.weight)
        signs[1::2] = -1
        with torch.no_grad():
            self.spread.weight.fill_(1 / 3)
            layer.weight.copy_(signs)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.layer(self.spread(images.permute(0, 3, 1, 2).float())).flatten(1),)


@pytest.mark.parametrize(
    "fields", [{"bits": 8}, {"bits": 6}, {"bits": 6, "scheme": "affine"}], ids=str
)
@pytest.mark.parametrize(
    "layer",
    [
        # one for each way in which the runtime computes them
        nn.Conv2d(32, 8, 3),
        nn.Conv2d(32, 16, 3),
        nn.Conv2d(32, 16, 1),
        nn.Conv2d(5, 8, 3, stride=2),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 7, groups=8),
        nn.Conv2d(16, 16, 7, groups=16),
        nn.Conv2d(8, 16, 7, groups=8),
        nn.Conv2d(1, 1, 7),
    ],
    ids=str,
)
def test_integers_add_up_where_products_are_largest(
    layer: nn.Conv2d, fields: dict[str, object], tmp_path: Path
) -> None:
    # processors without VNNI add the products of convolutions two at a time, in 16 bits
    bright = np.full((2, 16, 16, 3), 255, np.uint8)
    compressed = Compressed(Extremes(copy.deepcopy(layer)).eval())
    quantize_(compressed, Quantize.model_validate({"layers": "**", **fields}))
    artifact = target.lower(
        graph_of(compressed.module),
        compressed,
        tmp_path,
        drive=lambda run: run("net", images=bright),
    )
    assert kernels(artifact.files[0], tmp_path)["QLinearConv"] == 2
    (expected,) = (one.detach().numpy() for one in compressed.module(torch.from_numpy(bright)))
    (low, high) = compressed.ranges["net"][-1].tolist()
    found = target.open(artifact)("net", images=bright)["y"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=(high - low) / 255)


def test_no_two_products_of_a_stored_convolution_exceed_16_bits(tmp_path: Path) -> None:
    # what the test above shows only on processors that add them so
    model = Extremes(nn.Conv2d(32, 16, 3))
    artifact = target.lower(graph_of(model), eight_bits(model), tmp_path, drive=drive)
    codes = [
        numpy_helper.to_array(one)
        for one in onnx.load(artifact.files[0]).graph.initializer
        if one.name.endswith("weight.codes")
    ]
    assert [one.dtype for one in codes] == [np.int8, np.int8]
    assert max(np.abs(one.astype(int)).max() for one in codes) * 2 * 255 < 2**15


@pytest.mark.parametrize("bits", [32, 16])
def test_a_convolution_between_integer_ones_keeps_its_own_weights(
    bits: int, tmp_path: Path
) -> None:
    # the runtime would give it one scale for all weights: that of one that nothing is multiplied by
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        model[0].weight[0], model[0].bias[0], model[2].weight[:, 0] = 0, 0, 1000
    compressed = Compressed(Channelled(model).eval())
    widths = {"net.0": 8, "net.2": bits, "net.3": 8}
    quantize_(compressed, Quantize(layers="**", bits=widths))
    module = compressed.module
    artifact = target.lower(graph_of(module), compressed, tmp_path, drive=drive)
    (expected,) = (one.detach().numpy() for one in module(torch.from_numpy(IMAGES)))
    found = target.open(artifact)("net", images=IMAGES)["y"]
    assert np.abs(found - expected).mean() < 0.02 * np.abs(expected).mean()


def test_a_batch_and_an_image_alone_agree(tmp_path: Path) -> None:
    model = Residual()
    run = target.open(target.lower(graph_of(model), eight_bits(model), tmp_path, drive=drive))
    alone = [run("net", images=image[None])["y"] for image in IMAGES]
    np.testing.assert_array_equal(np.concatenate(alone), run("net", images=IMAGES)["y"])


def test_known_ranges_are_not_measured_again(tmp_path: Path) -> None:
    model = Residual()
    compressed = eight_bits(model)
    first = target.lower(graph_of(model), compressed, tmp_path / "first", drive=drive)
    assert compressed.ranges["net"].shape == (5, 2)
    again = Compressed(model, compressed.quantized, compressed.ranges)
    second = target.lower(graph_of(model), again, tmp_path / "second")
    assert first.files[0].read_bytes() == second.files[0].read_bytes()


def test_ranges_of_another_model_are_refused(tmp_path: Path) -> None:
    model = Residual()
    compressed = eight_bits(model)
    compressed.ranges["net"] = torch.zeros(3, 2)
    with pytest.raises(CheckpointError, match="ranges of 5 activations, but holds 3"):
        target.lower(graph_of(model), compressed, tmp_path)
    compressed.ranges.clear()
    with pytest.raises(CheckpointError, match="ranges of 5 activations, but holds 0"):
        target.lower(graph_of(model), compressed, tmp_path)


def test_a_dead_channel_and_a_dead_activation_are_no_trouble(tmp_path: Path) -> None:
    model = Residual()
    with torch.no_grad():
        model.conv.weight[2] = 0
        model.norm.bias[2] = 50
        model.stem.weight.zero_()
        model.stem.bias.zero_()
    run = target.open(target.lower(graph_of(model), eight_bits(model), tmp_path, drive=drive))
    with torch.no_grad():
        (expected,) = model(torch.from_numpy(IMAGES))
    np.testing.assert_allclose(run("net", images=IMAGES)["y"], expected, rtol=0.05, atol=0.05)


def test_weights_take_a_byte_each(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, 512, 5))
    graph = SmallGraph(model, {"images": torch.zeros(1, 3, 8, 8)}, ("y",))

    def drive_it(run: Run) -> None:
        run("net", images=np.ones((1, 3, 8, 8), np.float32))

    sizes = [
        target.lower({"net": graph}, compressed, tmp_path / name, drive=drive_it).size_bytes
        for name, compressed in (("fp32", Compressed(model)), ("int8", eight_bits(model)))
    ]
    assert sizes[1] < 0.32 * sizes[0]


@pytest.mark.parametrize("bits", [4, 5, 6])
def test_few_bits_are_fewer_bytes_and_the_same_kernels(bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.Conv2d(64, 64, 1)).eval()
    sizes, kinds = {}, {}
    for width in (8, bits):
        compressed = Compressed(Channelled(model).eval())
        quantize_(compressed, Quantize(layers="**", bits=width))
        artifact = target.lower(
            graph_of(compressed.module), compressed, tmp_path / str(width), drive=drive
        )
        sizes[width] = artifact.size_mb
        kinds[width] = kernels(artifact.files[0], tmp_path)
        found = target.open(artifact)("net", images=IMAGES)["y"]
        (expected,) = (one.detach().numpy() for one in compressed.module(torch.from_numpy(IMAGES)))
        assert np.abs(found - expected).mean() < 0.05 * np.abs(expected).mean()
    assert kinds[bits] == kinds[8]
    assert kinds[8]["QLinearConv"] == 2
    saved = 64 * 64 * (8 - bits) / 8 / 1e6
    assert sizes[8] - sizes[bits] == pytest.approx(saved, abs=0.003)
