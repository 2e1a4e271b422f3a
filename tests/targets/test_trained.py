"""What was trained through its rounding: the artefact computes what training saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import ConvNet, conv_graph
from torch import nn

from autocomp.compress.formats import Compressed
from autocomp.compress.training import FakeQuantized, fake_quantized
from autocomp.policy import Quantize
from autocomp.targets.base import Run
from autocomp.targets.onnxruntime import target

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)


def drive(run: Run) -> None:
    run("net", images=IMAGES)


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
