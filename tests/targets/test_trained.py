"""What was trained through its rounding: the artefact computes what training saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import ConvNet, Mlp, conv_graph, in_torch, mlp_graph
from torch import Tensor, nn

from autocomp.compress.formats import Compressed
from autocomp.compress.training import FakeQuantized, fake_quantized
from autocomp.policy import Quantize
from autocomp.targets.base import Run
from autocomp.targets.onnxruntime import target

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)


def drive(run: Run) -> None:
    run("net", images=IMAGES)


class Residual(nn.Module):
    """A block whose sum is rounded for the convolution after it, and one of its branches before.

    Its second activation function is none that a convolution includes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.down, self.last = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 8, 3)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        x = torch.relu(self.stem(images.permute(0, 3, 1, 2).float() / 255))
        x = nn.functional.silu(self.norm(self.conv(x)) + self.down(x) + x)
        return (self.head(self.last(x).mean((2, 3))),)


def train(model: nn.Module, regime: FakeQuantized, steps: int = 12) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    wanted = torch.randn(len(IMAGES), 5, generator=torch.Generator().manual_seed(1))
    model.train()
    for index in range(steps):
        with regime.active(model):
            (found,) = model(torch.from_numpy(IMAGES))
        optimizer.zero_grad()
        (found - wanted).square().mean().backward()
        optimizer.step()
        regime.after_step(model, (index + 1) / steps)
    model.eval()


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_artefact_computes_what_training_saw(bits: int, scheme: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ConvNet()
    compressed = Compressed(model)
    step = Quantize.model_validate({"layers": "**", "bits": bits, "scheme": scheme, "qat": True})
    regime, _ = fake_quantized(compressed, step)
    train(model, regime)
    with torch.no_grad(), regime.active(model):
        wanted = model(torch.from_numpy(IMAGES))[0].numpy()
    regime.finish(model)
    graphs = {"net": conv_graph(model)}
    artifact = target.lower(graphs, compressed, tmp_path, drive=drive)
    found = target.open(artifact)("net", images=IMAGES)["y"]
    assert np.abs(found - wanted).mean() < 0.02 * np.abs(wanted).mean()


@pytest.mark.parametrize("bits", [4, 8])
def test_activations_are_rounded_in_training_where_the_artefact_rounds_them(
    bits: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Residual()
    compressed = Compressed(model)
    regime, _ = fake_quantized(compressed, Quantize(layers="**", bits=bits, qat=True))
    train(model, regime)
    with torch.no_grad(), regime.active(model):
        wanted = model(torch.from_numpy(IMAGES))[0].numpy()
    regime.finish(model)
    stem, conv, down, last = (
        regime.ranges[f"{name}.weight"] for name in ("stem", "conv", "down", "last")
    )
    in_order = (*stem, conv.out_of, down.out_of, *last)  # what the stem gives is rounded once
    compressed.ranges["net"] = torch.tensor([(one.low, one.high) for one in in_order])
    found = target.open(target.lower({"net": conv_graph(model)}, compressed, tmp_path))(
        "net", images=IMAGES
    )["y"]
    (plain,) = in_torch(model, IMAGES)
    errors, unrounded = (np.abs(one - wanted).max(axis=1) for one in (found, plain))
    # of other pictures a sum in another order falls to the next code somewhere
    assert errors.min() < 1e-6
    assert unrounded.min() > 1e-4


@pytest.mark.parametrize("granularity", ["group", "channel", "tensor"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_linear_layers_round_the_very_same_activations(
    bits: int, granularity: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Mlp().eval()
    compressed = Compressed(model)
    fields = {"layers": "**", "bits": bits, "granularity": granularity, "qat": True}
    regime, _ = fake_quantized(compressed, Quantize.model_validate(fields))
    x = np.random.default_rng(0).normal(size=(6, 1, 40)).astype(np.float32)
    with torch.no_grad(), regime.active(model):
        wanted = model(torch.from_numpy(x))[0].numpy()
    regime.finish(model)
    artifact = target.lower({"net": mlp_graph(model)}, compressed, tmp_path)
    found = target.open(artifact)("net", x=x)["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(in_torch(model, x)[0] - wanted).max() > 1e-3
