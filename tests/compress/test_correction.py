"""Bias correction: the means of channels are what they were before weights were rounded."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from autocomp.compress.correction import (
    MOST_SPREAD,
    Statistics,
    channel_statistics,
    restore_,
    shifted_tensors,
)
from autocomp.compress.fixed_point import fix_
from autocomp.compress.formats import Compressed
from autocomp.compress.quantize import quantize_
from autocomp.policy import FixedPoint, Quantize
from autocomp.rounding import Rounding


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
    found, several = channel_statistics(net, lambda: net(IMAGES), shifted)
    assert (set(found), several) == (set(shifted), [])
    expected = net(IMAGES).mean(dim=(0, 2, 3))
    spoil(net)
    shifted = net(IMAGES).mean(dim=(0, 2, 3))
    restore_(net, lambda: net(IMAGES), found)
    restored = net(IMAGES).mean(dim=(0, 2, 3))
    assert (shifted - expected).abs().max() > 0.02
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=1e-5)
    assert not net.stem_norm._forward_pre_hooks
    assert not net.last._forward_hooks


def test_norms_may_give_the_spreads_that_they_gave_before(net: nn.Module) -> None:
    seen: list[Tensor] = []
    for norm in (net.stem_norm, net.depthwise_norm):
        torch.nn.init.uniform_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
        norm.register_forward_hook(lambda _, __, maps: seen.append(maps))
    found, _ = channel_statistics(net, lambda: net(IMAGES), shifted_tensors(net))
    with torch.no_grad():
        for conv in (net.stem, net.depthwise):
            conv.weight.mul_(0.6).add_(0.05)
    restore_(net, lambda: net(IMAGES), found, spread=True)
    seen[2:] = []
    net(IMAGES)
    for wanted, restored in zip(seen[:2], seen[2:], strict=True):
        for one, other in zip(Statistics.of(wanted), Statistics.of(restored), strict=True):
            torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)


def test_a_channel_of_nothing_is_not_blown_up(net: nn.Module) -> None:
    found, _ = channel_statistics(net, lambda: net(IMAGES), shifted_tensors(net))
    with torch.no_grad():
        net.stem.weight[0] = 0
    restore_(net, lambda: net(IMAGES), found, spread=True)
    torch.testing.assert_close(
        net.stem_norm.running_var[0].item(), MOST_SPREAD**-2, rtol=1e-3, atol=0
    )


def test_means_come_back_where_spreads_cannot(net: nn.Module) -> None:
    """A norm of next to no variance cannot divide by less than its epsilon."""
    for norm in (net.stem_norm, net.depthwise_norm):
        norm.eps = 2.0
    found, _ = channel_statistics(net, lambda: net(IMAGES), shifted_tensors(net))
    expected = net.stem_norm(net.stem(IMAGES)).mean(dim=(0, 2, 3))
    with torch.no_grad():
        net.stem.weight.mul_(0.3)
    restore_(net, lambda: net(IMAGES), found, spread=True)
    assert (net.stem_norm.running_var == 0).all()
    restored = net.stem_norm(net.stem(IMAGES)).mean(dim=(0, 2, 3))
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spread", [False, True])
def test_no_change_corrects_nothing(net: nn.Module, spread: bool) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found, _ = channel_statistics(net, lambda: net(IMAGES), shifted_tensors(net))
    restore_(net, lambda: net(IMAGES), found, spread)
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


class Reused(nn.Module):
    """One after the other, layers of which some are the same, or share what a correction shifts."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x)) + 3
        return x


def reused(kind: str) -> Reused:
    torch.manual_seed(0)
    conv, other, last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
    norm = nn.BatchNorm2d(3)
    if kind == "a shared bias":
        other.bias = conv.bias
    between = {"a convolution": [conv, conv], "a norm": [norm, conv, norm]}.get(kind, [conv, other])
    return Reused([*between, last]).eval()


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("a convolution", "layers.0"),
        ("a norm", "layers.0"),
        ("a shared bias", "layers.0 and 1 more"),
    ],
    ids=lambda value: value.replace(" ", "-"),
)
def test_what_acts_in_more_than_one_place_is_left_as_it_was_and_named(
    kind: str, named: str
) -> None:
    net, exact = reused(kind), reused(kind)
    lines = quantize_(
        Compressed(net), Quantize(layers="**", bits=8, activation_bits=32), [lambda: net(IMAGES)]
    )
    reason = (
        "means are not restored after rounding, for what would restore them acts in more than one"
    )
    assert lines == [f"{named}: {reason} place"]
    for name in ("running_mean", "bias"):
        before, after = (getattr(one.layers[0], name, None) for one in (exact, net))
        assert before is None or torch.equal(before, after)
    assert not torch.equal(exact.layers[-1].bias, net.layers[-1].bias)
    with torch.no_grad():
        wanted = exact(IMAGES)
        assert (net(IMAGES) - wanted).norm() < 0.02 * wanted.norm()


class Named(nn.Module):
    """Layers that are called by the names of what they take."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(input=self.conv(input=x))
        return self.linear(input=x.mean(dim=(2, 3)))


@pytest.mark.parametrize("rounding", ["nearest", "compensated"])
def test_layers_may_be_called_by_name(rounding: Rounding) -> None:
    net = Named().eval()
    expected = net(IMAGES)
    compressed = Compressed(net)
    step = Quantize(layers="**", bits=8, rounding=rounding)
    assert quantize_(compressed, step, [lambda: net(IMAGES)]) == []
    assert {one.format.rounding for one in compressed.quantized.values()} == {rounding}
    torch.testing.assert_close(net(IMAGES), expected, atol=0.02, rtol=0.02)
    assert net.norm.running_mean.any()


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
    assert next(line for line in lines if "means" in line).startswith(
        f"{held}: means are not restored"
    )
    for name, tensor in compressed.fixed.items():
        assert torch.equal(net.state_dict()[name], tensor.values()), name
    for name in free:
        assert not torch.equal(net.state_dict()[name], before[name]), name
