"""Modules as users make them of plain layers: the file computes what PyTorch does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import Part, SmallGraph, in_torch
from torch import Tensor, nn
from torch.nn import functional

from autocomp.compress.formats import Compressed
from autocomp.compress.quantize import quantize_
from autocomp.errors import UserError
from autocomp.policy import Quantize
from autocomp.targets.base import Artifact
from autocomp.targets.onnxruntime import target

TOLERANCE = {32: 1e-5, 8: 0.05}
"""By the bits of the weights: the mean error, of the mean size of what PyTorch computes."""
CHANNELS = 8
SIDES = {1: (16,), 2: (8, 8), 3: (5, 5, 5)}
CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Made(nn.Module):
    """Computes `formula` of its parts, by name, and its inputs."""

    def __init__(self, formula: Callable[..., Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.formula = formula
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.formula(self, *inputs)


class Results(Part):
    """What a graph needs: a tuple."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        found = self.inner(*inputs)
        return found if isinstance(found, tuple) else (found,)


def conv(dims: int, **fields: Any) -> nn.Module:
    """A convolution that keeps the shape of (B, 8, ...)."""
    return CONVOLUTIONS[dims](CHANNELS, CHANNELS, 3, padding=1, **fields)


def norm(dims: int, **fields: Any) -> nn.Module:
    """A BatchNorm with statistics and scales that are not 0 and 1."""
    made = NORMS[dims](CHANNELS, **fields)
    nn.init.uniform_(made.running_mean, -0.5, 0.5)
    nn.init.uniform_(made.running_var, 0.5, 1.5)
    if made.affine:
        nn.init.uniform_(made.weight, 0.5, 1.5)
        nn.init.uniform_(made.bias, -0.5, 0.5)
    return made


def tied(own: Made, x: Tensor) -> Tensor:
    """A linear layer there and back, over the channels."""
    wide = own.linear(x.movedim(1, -1)).relu()
    return functional.linear(wide, own.linear.weight.t()).movedim(-1, 1)


def stored(dims: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(1, CHANNELS, *SIDES[dims]))


BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "norm folded": lambda dims: nn.Sequential(conv(dims), norm(dims)),
    "no bias": lambda dims: nn.Sequential(conv(dims, bias=False), norm(dims), nn.ReLU()),
    "plain norm": lambda dims: nn.Sequential(conv(dims), norm(dims, affine=False), nn.ReLU()),
    "norm first": lambda dims: nn.Sequential(norm(dims), conv(dims), nn.Hardswish()),
    "grouped": lambda dims: nn.Sequential(conv(dims, groups=2), norm(dims)),
    "depthwise": lambda dims: nn.Sequential(conv(dims, groups=CHANNELS), norm(dims)),
    "transposed": lambda dims: nn.Sequential(
        TRANSPOSED[dims](CHANNELS, CHANNELS, 3, padding=1, groups=2), norm(dims)
    ),
    "layer twice": lambda dims: Made(lambda own, x: own.a(own.a(x).relu()), a=conv(dims)),
    "layer and norm twice": lambda dims: Made(
        lambda own, x: own.a(own.a(x).relu() * 3), a=nn.Sequential(conv(dims), norm(dims))
    ),
    "one layer, two norms": lambda dims: Made(
        lambda own, x: own.m(y := own.a(x)) + own.n(y), a=conv(dims), m=norm(dims), n=norm(dims)
    ),
    "weight regularised": lambda dims: Made(
        lambda own, x: own.a(x) * own.a.weight.norm(), a=conv(dims)
    ),
    "a stored input": lambda dims: Made(
        lambda own, x: own.a(x) + own.b(own.p), a=conv(dims), b=conv(dims), p=stored(dims)
    ),
    "a stored input too": lambda dims: Made(
        lambda own, x: own.a(x) + own.a(own.p), a=conv(dims), p=stored(dims)
    ),
    "linear there and back": lambda dims: Made(tied, linear=nn.Linear(CHANNELS, 24)),
}


def shares_bias(dims: int) -> nn.Module:
    """Two convolutions with one bias, of inputs of different sizes."""
    first, second = conv(dims), conv(dims)
    second.bias = first.bias
    return Made(lambda own, x: own.a(x) + own.b(own.a(x) * 9), a=first, b=second)


def own_bias(dims: int) -> nn.Module:
    """A bias of the name that a folded norm's would have, but added later."""
    return Made(
        lambda own, x: own.n(functional.conv2d(x, own.weight)).relu() + own.bias[:, None, None],
        weight=nn.Parameter(torch.randn(CHANNELS, CHANNELS, 3, 3)),
        bias=nn.Parameter(torch.randn(CHANNELS)),
        n=norm(dims),
        unread=nn.Conv2d(1, 1, 1),
    )


PLANES: dict[str, Callable[[], nn.Module]] = {
    "one bias": lambda: shares_bias(2),
    "a bias of its own": lambda: own_bias(2),
    "a computed bias": lambda: Made(
        lambda own, x: functional.conv2d(x, own.a.weight, own.a.bias * 2), a=nn.Conv2d(8, 32, 3)
    ),
    "a convolution's weight as a matrix": lambda: Made(
        lambda own, x: own.a(x).mean((2, 3)) + x.mean((2, 3)) @ own.a.weight.mean((2, 3)),
        a=conv(2),
    ),
    "a convolution of a weight": lambda: Made(
        lambda own, x: own.a(x) + own.b(own.a.weight).mean(), a=conv(2), b=conv(2)
    ),
    "a linear layer as a convolution": lambda: Made(
        lambda own, x: (
            functional.conv2d(x, own.a.weight[:, :, None, None])
            + own.a(x.mean((2, 3)))[:, :, None, None]
        ),
        a=nn.Linear(8, 16),
    ),
    "a padded stride": lambda: Made(
        lambda own, x: own.a(functional.pad(x, (1, 2, 0, 1))), a=nn.Conv2d(8, 8, 3, stride=2)
    ),
}
ROWS: dict[str, Callable[[], nn.Module]] = {
    "tied": lambda: Made(
        lambda own, x, ids: functional.linear(own.a(x).relu(), own.a.weight.t()),
        a=nn.Linear(32, 48),
    ),
    "columns looked up": lambda: Made(
        lambda own, x, ids: own.a(x)[:, None] + own.a.weight.t()[ids], a=nn.Linear(32, 32)
    ),
    "rows looked up": lambda: Made(
        lambda own, x, ids: own.a(x)[:, None] + own.a.weight[ids], a=nn.Linear(32, 32)
    ),
    "nearest row": lambda: Made(
        lambda own, x, ids: own.a(ids) + (x[:, None] - own.a.weight).square().sum(-1).mean(),
        a=nn.Embedding(40, 32),
    ),
    "products of a weight": lambda: Made(
        lambda own, x, ids: own.a(x) @ (own.a.weight.t() @ own.a.weight.t()), a=nn.Linear(32, 32)
    ),
    "a matrix added": lambda: Made(
        lambda own, x, ids: torch.addmm(own.p, x, own.a.weight.t()),
        a=nn.Linear(32, 32),
        p=nn.Parameter(torch.randn(3, 32)),
    ),
    "something computed added": lambda: Made(
        lambda own, x, ids: torch.addmm(x, x, own.a.weight.t()), a=nn.Linear(32, 32)
    ),
    "layer twice": lambda: Made(lambda own, x, ids: own.a(own.a(x).relu()), a=nn.Linear(32, 32)),
    "what is stored given back": lambda: Made(
        lambda own, x, ids: (own.a(x) + own.p, own.p, own.a.bias),
        a=nn.Linear(32, 32),
        p=nn.Parameter(torch.randn(3, 32)),
    ),
    "a parameter called as the input": lambda: Made(
        lambda own, x, ids: own.a(x) + own.in0,
        a=nn.Linear(32, 32),
        in0=nn.Parameter(torch.ones(32)),
    ),
}


def lower(model: nn.Module, bits: int, folder: Path, *inputs: Tensor) -> Artifact:
    """`model` as a file, of which what `quantize` has formats for is in `bits`."""
    compressed = Compressed(model)
    if bits < 32:
        quantize_(compressed, Quantize(layers="**", bits=bits))
    named = {f"in{place}": one for place, one in enumerate(inputs)}
    part = Results(model)
    outputs = tuple(f"out{place}" for place, _ in enumerate(part(*inputs)))
    arrays = {name: one.numpy() for name, one in named.items()}
    graph = SmallGraph(part, named, outputs)
    return target.lower({"net": graph}, compressed, folder, drive=lambda run: run("net", **arrays))


def check(model: nn.Module, bits: int, folder: Path, *inputs: Tensor) -> Artifact:
    """The file of `model` gives what PyTorch computes with the same weights."""
    artifact = lower(model.eval(), bits, folder, *inputs)
    arrays = [one.numpy() for one in inputs]
    found = target.open(artifact)("net", **{f"in{place}": one for place, one in enumerate(arrays)})
    for one, wanted in zip(found.values(), in_torch(Results(model), *arrays), strict=True):
        assert one.shape == wanted.shape
        assert np.abs(one - wanted).mean() <= TOLERANCE[bits] * np.abs(wanted).mean()
    return artifact


@pytest.mark.parametrize("dims", SIDES)
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_dense_blocks_of_any_rank_agree(
    block: Callable[[int], nn.Module], dims: int, tmp_path: Path
) -> None:
    check(block(dims), 32, tmp_path, torch.randn(2, CHANNELS, *SIDES[dims]))


@settings(max_examples=15)
@given(
    names=st.lists(st.sampled_from([*BLOCKS]), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_blocks_in_eight_bits_agree_in_any_order(names: list[str], seed: int) -> None:
    torch.manual_seed(seed)
    # of a layer that formats have, and blocks that may have none
    model = nn.Sequential(*(BLOCKS[name](2) for name in names), conv(2))
    with TemporaryDirectory() as folder:
        check(model, 8, Path(folder), torch.randn(2, CHANNELS, *SIDES[2]))


@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize("make", PLANES.values(), ids=PLANES)
def test_weights_and_biases_of_many_readers_agree(
    make: Callable[[], nn.Module], bits: int, tmp_path: Path
) -> None:
    check(make(), bits, tmp_path, torch.randn(2, CHANNELS, 8, 8))


@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
def test_matrices_of_many_readers_agree(
    make: Callable[[], nn.Module], bits: int, tmp_path: Path
) -> None:
    ids = torch.tensor([[1, 5, 31], [0, 2, 7], [3, 3, 3]])
    check(make(), bits, tmp_path, torch.randn(3, 32), ids)


def test_a_weight_with_a_reader_without_a_kernel_computes_in_fp32(tmp_path: Path) -> None:
    linear = check(ROWS["tied"](), 8, tmp_path / "a", torch.randn(3, 32), torch.zeros(1).long())
    assert linear.computed_bits == {"a.weight": 32}
    assert "8 bits have no kernel where MatMul reads them" in linear.skipped[0]
    model = BLOCKS["weight regularised"](2)
    assert check(model, 8, tmp_path / "b", torch.randn(2, 8, 8, 8)).computed_bits == {
        "a.weight": 32
    }


def test_a_layer_called_twice_keeps_its_kernel_and_its_codes(tmp_path: Path) -> None:
    artifact = check(BLOCKS["layer twice"](2), 8, tmp_path, torch.randn(2, CHANNELS, 8, 8))
    assert artifact.computed_bits == {"a.weight": 8}


def test_what_cannot_be_exported_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"net: must compute .* but got: .*aten::vdot") as caught:
        lower(Made(lambda own, x: torch.vdot(x, x)[None]), 32, tmp_path, torch.ones(3))
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
