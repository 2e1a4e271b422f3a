"""Pixels that are normalised by an integer convolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small_models import Part, SmallGraph, conv_graph, in_torch
from test_static import IMAGES, drive, eight_bits, kernels
from torch import Tensor, nn

from autocomp.compress.formats import Compressed
from autocomp.targets.onnxruntime import target

MEAN = torch.tensor([123.675, 116.28, 103.53])
AXES = {"images": {0: "batch"}}
DEVIATION = torch.tensor([58.395, 57.12, 57.375])


class Normalising(nn.Module):
    """Normalises as ImageNet's backbones do; `mean` has any shape."""

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        x = (images.permute(0, 3, 1, 2).float() - self.mean) / self.deviation
        return (self.last(torch.relu(self.conv(x))).flatten(1),)


@pytest.mark.parametrize(
    ("mean", "deviation", "convolutions"),
    [
        (MEAN.view(3, 1, 1), DEVIATION.view(3, 1, 1), 3),
        (torch.full((3, 1, 1), 127.5), torch.full((3, 1, 1), 127.5), 3),
        (torch.full((3, 1, 1), 127.0), torch.full((3, 1, 1), 128.0), 2),
        (torch.full((1, 1, 1), 127.0), torch.full((1, 1, 1), 128.0), 2),
        (torch.full((1, 1, 1), 120.5), DEVIATION.view(3, 1, 1), 3),
    ],
    ids=["by channel", "half a level", "codes already", "one for all", "one mean"],
)
def test_no_pixel_is_ever_a_float(
    mean: Tensor, deviation: Tensor, convolutions: int, tmp_path: Path
) -> None:
    model = Normalising(mean, deviation).eval()
    dense = target.lower({"net": conv_graph(model)}, Compressed(model), tmp_path / "dense")
    expected = target.open(dense)("net", images=IMAGES)["y"]
    artifact = target.lower(
        {"net": conv_graph(model)}, eight_bits(model), tmp_path / "int8", drive=drive
    )
    found = target.open(artifact)("net", images=IMAGES)["y"]
    assert np.abs(found - expected).mean() < 0.02 * np.abs(expected).mean()
    counted = kernels(artifact.files[0], tmp_path)
    assert counted["QLinearConv"] == convolutions
    assert not {"Sub", "Div", "Cast", "QuantizeLinear"} & set(counted), counted


@pytest.mark.parametrize("mean", [MEAN, torch.full((3,), 127.0)], ids=["by channel", "equal"])
def test_grey_pixels_may_become_three_channels(mean: Tensor, tmp_path: Path) -> None:
    model = Normalising(mean.view(3, 1, 1), torch.full((3, 1, 1), 60.0)).eval()
    grey = IMAGES[..., :1]
    graph = SmallGraph(Part(model), {"images": torch.from_numpy(grey[:1])}, ("y",), AXES)
    artifact = target.lower(
        {"net": graph}, eight_bits(model), tmp_path, drive=lambda run: run("net", images=grey)
    )
    found = target.open(artifact)("net", images=grey)["y"]
    (expected,) = in_torch(model, grey)
    assert np.abs(found - expected).mean() < 0.02 * np.abs(expected).mean()


@pytest.mark.parametrize(
    ("mean", "deviation"),
    [
        (torch.tensor(120.0), torch.tensor(60.0)),
        (MEAN.view(3, 1, 1), torch.tensor(60.0)),
        (torch.full((3, 16, 16), 120.0), DEVIATION.view(3, 1, 1)),
    ],
    ids=["one for all", "one deviation", "a mean image"],
)
def test_other_normalisations_stay_as_they_are(
    mean: Tensor, deviation: Tensor, tmp_path: Path
) -> None:
    model = Normalising(mean, deviation).eval()
    artifact = target.lower({"net": conv_graph(model)}, eight_bits(model), tmp_path, drive=drive)
    nodes = {node.op_type for node in onnx.load(str(artifact.files[0])).graph.node}
    assert {"Sub", "Div"} <= nodes
