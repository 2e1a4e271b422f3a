"""Fixed point in ONNX Runtime: the file computes with the same points as PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small_models import ConvNet, conv_graph, in_torch
from torch import nn

from autocomp.checkpoint.packing import describe, pack, restore
from autocomp.compress.fixed_point import fix_
from autocomp.compress.formats import Compressed
from autocomp.compress.grids import GRIDS, decode, encode, grid_of
from autocomp.compress.quantize import quantize_
from autocomp.policy import FixedPoint, Quantize
from autocomp.targets.base import Artifact, Run
from autocomp.targets.onnxruntime import target

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)


def drive(run: Run) -> None:
    run("net", images=IMAGES)


def fixed(**fields: object) -> Compressed:
    torch.manual_seed(0)
    model = ConvNet().eval()
    with torch.no_grad():
        model.norm.weight[3] = -0.7
    compressed = Compressed(model)
    assert fix_(compressed, FixedPoint.model_validate({"layers": "**", **fields})) == []
    return compressed


def lower(compressed: Compressed, folder: Path) -> Artifact:
    return target.lower({"net": conv_graph(compressed.module)}, compressed, folder, drive=drive)


@pytest.mark.parametrize("bits", [3, 8, 16])
@pytest.mark.parametrize("method", GRIDS)
def test_parameters_are_stored_in_their_bits_and_compute_the_same(
    method: str, bits: int, tmp_path: Path
) -> None:
    compressed = fixed(method=method, bits=bits, batch_norm_bits=16)
    assert {"conv.weight", "depthwise.bias", "norm.weight", "norm.running_var"} <= set(
        compressed.fixed
    )
    artifact = lower(compressed, tmp_path)
    found = target.open(artifact)("net", images=IMAGES)["y"]
    (wanted,) = in_torch(compressed.module, IMAGES)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    stored = {one.name: len(one.raw_data) for one in onnx.load(artifact.files[0]).graph.initializer}
    endings = (".codes", ".packed")
    own = [n for name, n in stored.items() if name.startswith("conv.") and name.endswith(endings)]
    assert sum(own) == pytest.approx(8 * 27 * bits / 8, abs=bits)
    assert "conv.weight" not in stored


class Rounded(nn.Module):
    """What the file should compute: each layer's result on its grid."""

    def __init__(self, compressed: Compressed, method: str, bits: int) -> None:
        super().__init__()
        self.net, self.method, self.bits = compressed.module, method, bits
        self.ranges = iter(compressed.ranges["net"].tolist())
        for name in ("norm", "norm2", "head"):  # a convolution's norm is folded into it
            self.net.get_submodule(name).register_forward_hook(lambda *call: self.round(call[-1]))

    def round(self, x: torch.Tensor) -> torch.Tensor:
        grid = torch.tensor(grid_of(self.method, *next(self.ranges), self.bits))
        return decode(encode(x, self.method, self.bits, grid), self.method, self.bits, grid)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return self.net(images)


def assert_near_on_grid(
    found: np.ndarray, wanted: np.ndarray, method: str, bits: int, ends: torch.Tensor
) -> None:
    """All values are points, none more than one step from where it should be, and few are.

    What lies between two points may go either way in another order of additions.
    """
    grid = torch.tensor(grid_of(method, *ends.tolist(), bits))
    here, there = (
        encode(torch.from_numpy(one), method, bits, grid).int() for one in (found, wanted)
    )
    points = decode(here, method, bits, grid).numpy()
    np.testing.assert_allclose(found, points, rtol=1e-4, atol=1e-6)
    apart = (here - there).abs()
    assert apart.max() <= 1
    assert (apart == 0).float().mean() >= 0.9


@pytest.mark.parametrize("method", GRIDS)
def test_results_of_layers_are_rounded_by_the_same_formula(method: str, tmp_path: Path) -> None:
    compressed = fixed(method=method, bits=8, activation_bits=6)
    found = target.open(lower(compressed, tmp_path))("net", images=IMAGES)["y"]
    assert compressed.ranges["net"].shape == (3, 2)
    (wanted,) = in_torch(Rounded(compressed, method, 6), IMAGES)
    assert_near_on_grid(found, wanted, method, 6, compressed.ranges["net"][-1])
    assert all(len(np.unique(column)) <= 2**6 for column in found.T)


def test_sixteen_linear_bits_of_everything_are_nearly_lossless(tmp_path: Path) -> None:
    torch.manual_seed(0)
    exact = fixed(method="linear", bits={"none": 8})
    (wanted,) = in_torch(exact.module, IMAGES)
    compressed = fixed(method="linear", bits=16, activation_bits=16, batch_norm_bits=16)
    found = target.open(lower(compressed, tmp_path))("net", images=IMAGES)["y"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("bits", [3, 8, 16])
@pytest.mark.parametrize("method", GRIDS)
def test_what_was_packed_gives_the_same_file(method: str, bits: int, tmp_path: Path) -> None:
    compressed = fixed(method=method, bits=bits, activation_bits=8, batch_norm_bits=8)
    first = lower(compressed, tmp_path / "first")
    packed, stored = pack(compressed), describe(compressed)
    for name, how in stored.items():
        assert how.stored_bytes == sum(
            one.nbytes
            for key, one in packed.items()
            if key in (name, f"{name}.codes", f"{name}.grid")
        )
    again = restore(ConvNet(), packed, stored)
    second = target.lower({"net": conv_graph(again.module)}, again, tmp_path / "second")
    assert first.files[0].read_bytes() == second.files[0].read_bytes()


@pytest.mark.parametrize("bits", [32, {"conv": 8}], ids=["fp32", "one in 8 bits"])
def test_results_are_rounded_whatever_weights_are_stored_in(bits: object, tmp_path: Path) -> None:
    compressed = fixed(method="minmax", bits=bits, activation_bits=4)
    artifact = lower(compressed, tmp_path / "first")
    assert artifact.skipped == ()
    assert artifact.computed_bits == ({} if bits == 32 else {"conv.weight": 32})
    assert compressed.ranges["net"].shape == (3, 2)
    found = target.open(artifact)("net", images=IMAGES)["y"]
    (wanted,) = in_torch(Rounded(compressed, "minmax", 4), IMAGES)
    assert_near_on_grid(found, wanted, "minmax", 4, compressed.ranges["net"][-1])
    assert len(np.unique(found)) <= 2**4
    again = restore(ConvNet(), pack(compressed), describe(compressed))
    second = target.lower({"net": conv_graph(again.module)}, again, tmp_path / "second")
    assert artifact.files[0].read_bytes() == second.files[0].read_bytes()


def test_results_of_weights_that_kernels_read_are_rounded_too(tmp_path: Path) -> None:
    model = ConvNet().eval()
    compressed = Compressed(model)
    assert quantize_(compressed, Quantize(layers="head", bits=4)) == []
    fix_(compressed, FixedPoint(layers="head", bits=32, activation_bits=3, method="minmax"))
    artifact = lower(compressed, tmp_path)
    assert artifact.computed_bits == {"head.weight": 4}
    assert len(np.unique(target.open(artifact)("net", images=IMAGES)["y"])) <= 2**3


class Turned(nn.Linear):
    """Multiplies by its weight from the wrong side, as no linear layer does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def test_results_that_cannot_be_rounded_are_named(tmp_path: Path) -> None:
    model = ConvNet().eval()
    model.head = Turned(8, 8)
    compressed = Compressed(model)
    fix_(compressed, FixedPoint(layers="head", bits=32, activation_bits=8))
    artifact = lower(compressed, tmp_path)
    assert artifact.skipped == (
        "head.weight: results stay in fp32, for no layer reads these weights as such",
    )
    assert compressed.ranges == {}
