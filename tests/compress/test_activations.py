"""Activations in training are rounded where the artefact rounds them, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocomp.compress.activations import (
    Around,
    RoundedActivations,
    RunningRange,
    round_groups,
)
from autocomp.errors import TrialStopped

X = torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(0))


def test_a_running_range_follows_slowly_and_holds_zero() -> None:
    observed = RunningRange("into conv")
    observed.see(torch.tensor([1.0, 2.0]))
    assert (observed.low, observed.high) == (0.0, 2.0)
    observed.see(torch.tensor([-1.0, 4.0]))
    assert (observed.low, observed.high) == pytest.approx((-0.1, 2.2))
    x = torch.linspace(-0.5, 3, 50)
    error = (observed.round(x) - x.clamp(observed.low, observed.high)).abs().max()
    assert error < 0.03
    assert RunningRange("into conv").round(torch.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_activations_that_are_not_finite_stop_the_trial(value: float) -> None:
    with pytest.raises(TrialStopped, match=r"^the activations into conv became (nan|inf)$"):
        RunningRange("into conv").round(torch.tensor([0.0, value, 1.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [16, 32, 128])
def test_each_group_has_a_scale_of_its_own(size: int, dtype: torch.dtype) -> None:
    x = torch.randn(3, 5, 72, generator=torch.Generator().manual_seed(1)).to(dtype)
    x[..., :size] *= 1000
    x.requires_grad_()
    found = round_groups(x, size)
    assert found.shape == x.shape
    assert found.dtype == dtype
    found.float().sum().backward()
    assert x.grad is not None
    assert (x.grad == 1).all()
    for own, group in zip(found.split(size, dim=2), x.split(size, dim=2), strict=True):
        step = group.detach().float().abs().amax(dim=2, keepdim=True) / 127
        codes = own.detach().float() / step
        assert (codes - codes.round()).abs().max() < (1e-3 if dtype == torch.float32 else 0.5)
        assert ((own - group).abs() <= step * (0.501 if dtype == torch.float32 else 1)).all()


def test_groups_of_zeros_stay_zeros() -> None:
    assert not round_groups(torch.zeros(2, 40), 32).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden_by_its_group(value: float) -> None:
    x = torch.ones(1, 64)
    x[0, 3] = value
    found = round_groups(x, 32)
    assert not found[0, 3].isfinite()
    assert (found[0, 32:] == 1).all()


class Convolved(nn.Module):
    """A convolution that computes in 8 bits, one that does not, and what is made of them."""

    def __init__(self, tail: Callable[[Convolved, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.plain = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8).eval()
        self.tail = tail

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self, x)


TAILS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    # what the model computes; the same with i: the rounding before, o: that after the convolution
    "alone": (
        lambda net, x: net.conv(x) * 2,
        lambda net, x, i, o: o(net.conv(i(x))) * 2,
    ),
    "norm and activation": (
        lambda net, x: torch.relu(net.norm(net.conv(x))) * 2,
        lambda net, x, i, o: o(torch.relu(net.norm(net.conv(i(x))))) * 2,
    ),
    "activation in place": (
        lambda net, x: functional.relu6(net.conv(x), inplace=True) * 2,
        lambda net, x, i, o: o(functional.relu6(net.conv(i(x)))) * 2,
    ),
    "clipped": (
        lambda net, x: net.conv(x).clamp(-0.3, 0.3) * 2,
        lambda net, x, i, o: o(net.conv(i(x)).clamp(-0.3, 0.3)) * 2,
    ),
    "no kernel includes this activation": (
        lambda net, x: functional.silu(net.conv(x)),
        lambda net, x, i, o: functional.silu(o(net.conv(i(x)))),
    ),
    "a norm after the activation is not folded": (
        lambda net, x: net.norm(torch.relu(net.conv(x))),
        lambda net, x, i, o: net.norm(o(torch.relu(net.conv(i(x))))),
    ),
    "one activation alone": (
        lambda net, x: torch.relu(torch.relu(net.conv(x)) - 0.1),
        lambda net, x, i, o: torch.relu(o(torch.relu(net.conv(i(x)))) - 0.1),
    ),
    "what was rounded is not rounded again": (
        lambda net, x: net.conv(torch.relu(net.conv(x))) * 2,
        lambda net, x, i, o: o(net.conv(o(torch.relu(net.conv(i(x)))))) * 2,
    ),
    "a sum that skips": (
        lambda net, x: net.conv(x) + x,
        lambda net, x, i, o: o(net.conv(i(x))) + i(x),
    ),
    "a list": (
        lambda net, x: torch.cat([net.conv(x), x], dim=1),
        lambda net, x, i, o: torch.cat([o(net.conv(i(x))), i(x)], dim=1),
    ),
    "keywords": (
        lambda net, x: functional.conv2d(weight=net.conv.weight, input=x, bias=None) * 2,
        lambda net, x, i, o: o(functional.conv2d(i(x), net.conv.weight)) * 2,
    ),
    "zeros around": (
        lambda net, x: net.conv(functional.pad(torch.relu(net.conv(x)), (0, 1, 0, 1))) * 2,
        lambda net, x, i, o: (
            o(net.conv(functional.pad(o(torch.relu(net.conv(i(x)))), (0, 1, 0, 1)))) * 2
        ),
    ),
    "others around": (
        lambda net, x: net.conv(functional.pad(net.conv(x), (0, 1, 0, 1), value=0.123)) * 2,
        lambda net, x, i, o: (
            o(net.conv(i(functional.pad(o(net.conv(i(x))), (0, 1, 0, 1), value=0.123)))) * 2
        ),
    ),
    "another convolution": (
        lambda net, x: torch.relu(net.plain(x)) * 2,
        lambda net, x, i, o: torch.relu(net.plain(x)) * 2,
    ),
}


def frozen(place: str, low: float, high: float) -> RunningRange:
    return RunningRange(place, low, high, is_frozen=True)


@pytest.mark.parametrize(("tail", "expected"), TAILS.values(), ids=TAILS)
def test_convolutions_read_and_give_rounded_maps(
    tail: Callable[..., Tensor], expected: Callable[..., Tensor]
) -> None:
    net = Convolved(tail)
    ends = frozen("into", -2.0, 2.5), frozen("out of", -1.0, 1.5)
    with torch.no_grad():
        wanted = expected(net, X, ends[0].round, ends[1].round)
        with RoundedActivations({}, {id(net.conv.weight): Around(*ends)}):
            found = net(X)
    assert torch.equal(found, wanted)


def test_a_range_is_of_what_is_rounded() -> None:
    def tail(net: Convolved, x: Tensor) -> Tensor:
        maps = net.norm(net.conv(x))
        assert maps.shape == (len(x), maps.size(1), *x.shape[2:])  # looking at it reads nothing
        return torch.relu(maps) * 2

    net = Convolved(tail)
    ends = RunningRange("into"), RunningRange("out of")
    with torch.no_grad(), RoundedActivations({}, {id(net.conv.weight): Around(*ends)}):
        net(X)
    assert (ends[0].low, ends[0].high) == pytest.approx((X.min().item(), X.max().item()))
    assert ends[1].low == 0 < ends[1].high


def test_two_that_are_active_each_round_their_own() -> None:
    net = Convolved(lambda net, x: net.plain(torch.relu(net.conv(x))) * 2)
    ends = [frozen(name, -2.0, 1.5) for name in "abcd"]
    with torch.no_grad():
        inner = ends[1].round(torch.relu(net.conv(ends[0].round(X))))
        wanted = ends[3].round(net.plain(inner)) * 2
        with ExitStack() as stack:
            for layer, around in ((net.conv, ends[:2]), (net.plain, ends[2:])):
                own = {id(layer.weight): Around(*around)}
                stack.enter_context(RoundedActivations({}, own))
            found = net(X)
    assert torch.equal(found, wanted)


def test_linear_layers_round_what_they_multiply_and_no_other_reader_does() -> None:
    layer, other = nn.Linear(40, 8), nn.Linear(40, 8)
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = layer(round_groups(x, 32)) + other(x) + x.sum()
        with RoundedActivations({id(layer.weight): 32}, {}):
            assert torch.equal(layer(x) + other(x) + x.sum(), wanted)
            named = functional.linear(weight=layer.weight, input=x, bias=layer.bias)
    assert torch.equal(named, layer(round_groups(x, 32)))
