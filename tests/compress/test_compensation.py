"""Compensated rounding: layers compute more nearly what they computed than rounded to nearest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autocomp.compress.compensation import (
    DAMPING,
    MOST_INPUTS,
    batched,
    compensate,
    is_compensable,
    moments,
)
from autocomp.compress.formats import SHARES, Compressed, LayerFormat, quantize_tensor
from autocomp.compress.quantize import quantize_
from autocomp.policy import Quantize

FORMATS: dict[str, dict[str, Any]] = {
    "groups": {"group_size": 16},
    "affine groups": {"group_size": 16, "affine": True},
    "channel": {},
    "affine channel": {"affine": True},
    "tensor": {"per_tensor": True},
}


def inputs(count: int, width: int, seed: int) -> Tensor:
    """Inputs that depend on one another and are of different sizes, as activations do."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) / width**0.5
    mixing = mixing + torch.diag(torch.rand(width, generator=generator) * 2)
    return torch.randn(count, width, generator=generator) @ mixing + 0.3


def error(weight: Tensor, values: Tensor, x: Tensor) -> float:
    return float(((weight - values) @ x.T).square().sum())


@pytest.mark.parametrize("fields", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_outputs_err_less_than_rounded_to_nearest(bits: int, fields: dict[str, Any]) -> None:
    weight = torch.randn(12, 150, generator=torch.Generator().manual_seed(bits)) / 12
    x = inputs(400, 150, bits)
    how = LayerFormat(bits=bits, rounding="compensated", **fields)
    found = compensate(weight, x.T @ x, how)
    assert found.codes.shape == weight.shape
    assert int(found.codes.max()) < 2**bits
    assert found.scales.shape == how.scale_shape(weight.shape)
    assert (found.zeros is not None) == how.affine
    nearest = quantize_tensor(weight, how)  # of the same search for scales
    own, other = (error(weight, one.dequantize(), x) for one in (found, nearest))
    assert own < 0.8 * other


@pytest.mark.parametrize("fields", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("bits", [2, 3])
def test_no_other_scale_leaves_less_error(
    bits: int, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # one group, for the scales of a later one depend on those before it
    weight, x = (
        torch.randn(12, 16, generator=torch.Generator().manual_seed(bits)),
        inputs(300, 16, 1),
    )
    how = LayerFormat(bits=bits, rounding="compensated", **fields)
    hessian = x.T @ x
    damped = hessian + DAMPING * hessian.diagonal().mean() * torch.eye(16)

    def errors() -> Tensor:
        """Of each row, or of all where they have one scale."""
        moved = compensate(weight, hessian, how).dequantize() - weight
        rows = ((moved @ damped) * moved).sum(dim=1)
        return rows.sum() if how.per_tensor else rows

    chosen = errors()
    others = []
    for share in SHARES:
        monkeypatch.setattr("autocomp.compress.formats.SHARES", (share,))
        others.append(errors())
    torch.testing.assert_close(chosen, torch.stack(others).amin(dim=0), rtol=1e-3, atol=0)


def test_independent_inputs_leave_nothing_to_compensate() -> None:
    weight = torch.randn(5, 48, generator=torch.Generator().manual_seed(0))
    how = LayerFormat(bits=4, rounding="compensated")
    found = compensate(weight, torch.eye(48), how)
    assert torch.equal(found.codes, quantize_tensor(weight, how).codes)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight, x = torch.randn(5, 48), inputs(100, 48, 0)
    x[:, :20] = 0
    found = compensate(weight, x.T @ x, LayerFormat(bits=3, rounding="compensated"))
    assert found.dequantize().isfinite().all()


class Net(nn.Module):
    """A convolution, a depthwise one, an embedding tied to a head, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(8, 32, 3, padding=1, stride=2)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.embedding = nn.Embedding(20, 32)
        self.untied = nn.Embedding(20, 32)
        self.head = nn.Linear(32, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, images: Tensor, words: Tensor) -> Tensor:
        maps = torch.relu(self.depthwise(torch.relu(self.conv(images))))
        return self.head(maps.mean(dim=(2, 3)) + self.embedding(words) + self.untied(words))


IMAGES = inputs(4 * 8 * 12, 12, 3).reshape(4, 8, 12, 12)
WORDS = torch.arange(4)


def test_moments_are_of_what_weights_are_multiplied_by() -> None:
    net = Net()
    weights = {
        name: net.get_parameter(f"{name}.weight") for name in ("conv", "embedding", "untied")
    }
    once = moments(net, weights, [lambda: net(IMAGES, WORDS)])
    twice = moments(net, weights, [lambda: net(IMAGES, WORDS)] * 2)
    assert set(once) == {"conv", "embedding"}
    patches = nn.functional.unfold(IMAGES, 3, padding=1, stride=2).transpose(0, 1).flatten(1)
    seen = once["conv"]
    assert (seen.count, twice["conv"].count) == (patches.shape[1], 2 * patches.shape[1])
    torch.testing.assert_close(seen.second, patches @ patches.T, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(seen.first, patches.sum(dim=1), rtol=1e-4, atol=1e-3)
    around = patches.cov() * (patches.shape[1] - 1)
    torch.testing.assert_close(seen.about_mean(), around, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(twice["embedding"].second, 2 * once["embedding"].second)
    assert not net.conv._forward_pre_hooks


def test_a_model_is_rounded_with_what_cannot_be_compensated_named() -> None:
    net = Net()
    before = net.conv.weight.detach().clone()
    wanted = nn.functional.conv2d(IMAGES, before, None, 2, 1)
    compressed = Compressed(net)
    step = Quantize(layers="**", bits=3, rounding="compensated")
    lines = quantize_(compressed, step, [lambda: net(IMAGES, WORDS)])
    formats = {name: tensor.format for name, tensor in compressed.quantized.items()}
    assert {name for name, how in formats.items() if how.rounding == "compensated"} == {
        "conv.weight",
        "embedding.weight",
    }
    assert [line.split(":", 1)[0] for line in lines] == ["depthwise", "depthwise", "untied"]
    for name, tensor in compressed.quantized.items():
        assert torch.equal(net.get_parameter(name), tensor.dequantize())
    nearest = quantize_tensor(before, formats["conv.weight"]).dequantize()
    errors = [
        (nn.functional.conv2d(IMAGES, one, None, 2, 1) - wanted).square().sum()
        for one in (net.conv.weight, nearest)
    ]
    assert errors[0] < errors[1]


LAYERS: dict[str, tuple[nn.Module, bool]] = {
    "linear": (nn.Linear(40, 3), True),
    "as many inputs as there may be": (nn.Linear(MOST_INPUTS, 1), True),
    "too many inputs": (nn.Linear(MOST_INPUTS + 1, 1), False),
    "embedding": (nn.Embedding(3, 40), False),
    "padded with zeros": (nn.Conv2d(8, 4, 3, padding=1), True),
    "padded by name": (nn.Conv2d(8, 4, 3, padding="same"), False),
    "grouped": (nn.Conv2d(8, 4, 3, groups=2), False),
    **{
        f"padded, {mode}": (nn.Conv2d(8, 4, 3, padding=1, padding_mode=mode), False)
        for mode in ("reflect", "replicate", "circular")
    },
}


@pytest.mark.parametrize(("layer", "expected"), LAYERS.values(), ids=LAYERS)
def test_only_layers_whose_inputs_are_known_are_compensated(
    layer: nn.Module, expected: bool
) -> None:
    assert is_compensable(layer) == expected


def test_as_many_hessians_at_a_time_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autocomp.compress.compensation.HESSIAN_BYTES", 2 * 4 * 10**2)
    layers = {name: nn.Linear(10, 3) for name in "abcde"} | {"wide": nn.Linear(40, 3)}
    assert list(batched(layers)) == [["a", "b"], ["c", "d"], ["e"], ["wide"]]
