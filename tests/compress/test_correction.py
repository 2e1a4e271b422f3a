"""Bias correction: the means of channels are what they were before weights were rounded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autocomp.compress.correction import channel_means, restore_means_, shifted_tensors
from autocomp.compress.fixed_point import fix_
from autocomp.compress.formats import Compressed
from autocomp.compress.quantize import quantize_
from autocomp.policy import FixedPoint, Quantize


class Net(nn.Module):
    """Convolutions with a norm, with a bias, and depthwise; one after the other and beside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        x = x + torch.relu(self.depthwise_norm(self.depthwise(x)))
        return self.last(x)


IMAGES = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(1)) + 0.5


@pytest.fixture
def net() -> nn.Module:
    return Net().eval()


def spoil(net: nn.Module) -> None:
    """What rounding to very few levels does."""
    with torch.no_grad():
        for name in ("stem", "depthwise", "last"):
            weight = net.get_submodule(name).weight
            weight.copy_((weight * 3).round() / 3)


def test_the_means_come_back_layer_after_layer(net: nn.Module) -> None:
    shifted = shifted_tensors(net)
    assert shifted == {
        "stem_norm": "stem_norm.running_mean",
        "depthwise_norm": "depthwise_norm.running_mean",
        "last": "last.bias",
    }
    means = channel_means(net, lambda: net(IMAGES), shifted)
    expected = net(IMAGES).mean(dim=(0, 2, 3))
    spoil(net)
    shifted = net(IMAGES).mean(dim=(0, 2, 3))
    restore_means_(net, lambda: net(IMAGES), means)
    restored = net(IMAGES).mean(dim=(0, 2, 3))
    assert (shifted - expected).abs().max() > 0.02
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=1e-5)
    assert not net.stem_norm._forward_pre_hooks
    assert not net.last._forward_hooks


def test_no_change_corrects_nothing(net: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    means = channel_means(net, lambda: net(IMAGES), shifted_tensors(net))
    restore_means_(net, lambda: net(IMAGES), means)
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, before[name], atol=1e-6, rtol=0, msg=name)


def test_rounded_convolutions_are_corrected_and_others_need_no_data(net: nn.Module) -> None:
    expected = net(IMAGES).mean(dim=(0, 2, 3))
    quantize_(Compressed(net), Quantize(layers="**", bits=8), [lambda: net(IMAGES)])
    found = net(IMAGES).mean(dim=(0, 2, 3))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    def unused() -> None:
        raise AssertionError("nothing is rounded")

    for bits in (16, 32):
        quantize_(Compressed(Net()), Quantize(layers="**", bits=bits), [unused])


@pytest.mark.parametrize(
    ("fixed", "held"),
    [
        ({"layers": "last", "bits": 8}, "last"),
        ({"layers": "**", "bits": 32, "batch_norm_bits": 8}, "stem_norm and 1 more"),
    ],
    ids=["a bias", "running means"],
)
def test_what_is_in_fixed_point_keeps_its_codes(
    fixed: dict[str, object], held: str, net: nn.Module
) -> None:
    compressed = Compressed(net)
    fix_(compressed, FixedPoint.model_validate(fixed))
    free = {"stem_norm.running_mean", "depthwise_norm.running_mean", "last.bias"}
    free -= compressed.fixed.keys()
    before = {name: net.state_dict()[name].clone() for name in free}
    lines = quantize_(compressed, Quantize(layers="stem", bits=8), [lambda: net(IMAGES)])
    assert next(line for line in lines if "means" in line).startswith(f"{held}: means are as")
    for name, tensor in compressed.fixed.items():
        assert torch.equal(net.state_dict()[name], tensor.values()), name
    for name in free:
        assert not torch.equal(net.state_dict()[name], before[name]), name
