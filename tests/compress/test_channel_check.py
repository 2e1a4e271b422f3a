"""Masked outputs equal those of a model whose channels are zero, and wrong plans are noticed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autocomp.compress.channel_check import check_same, is_depthwise, masked_forward, tensors
from autocomp.compress.importance import Group, Member
from autocomp.errors import PolicyError

INPUTS = (torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)),)


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 2, 3)).eval()


def plan(model: nn.Sequential, read: list[int]) -> tuple[Group, dict[nn.Module, str]]:
    """A group that says channel n of the first layer is channel `read[n]` of the last."""
    every = torch.arange(4)
    first = Member("0", model[0], "out", every, every)
    last = Member("2", model[2], "in", torch.tensor(read), every)
    return Group("0", 4, (first, last), {}), {layer: n for n, layer in model.named_modules()}


def test_outputs_are_those_without_the_channels(model: nn.Sequential) -> None:
    group, names = plan(model, [0, 1, 2, 3])
    masked = masked_forward(model, INPUTS, [(group, torch.tensor([3, 1]))], names)
    with torch.no_grad():
        model[0].weight[[1, 3]] = 0
        model[0].bias[[1, 3]] = 0
        torch.testing.assert_close(masked.outputs[0], model(*INPUTS))
    assert masked.problems == ()
    check_same(model, INPUTS, masked)


class ByName(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self:
            x = layer(input=x)
        return x


def test_layers_may_be_called_by_name(model: nn.Sequential) -> None:
    named = ByName(*model)
    group, names = plan(named, [0, 1, 2, 3])
    removals = [(group, torch.tensor([3, 1]))]
    masked = masked_forward(named, INPUTS, removals, names)
    expected = masked_forward(model, INPUTS, removals, names)
    assert masked.problems == ()
    assert torch.equal(masked.outputs[0], expected.outputs[0])


def test_wrong_plan_is_noticed(model: nn.Sequential) -> None:
    group, names = plan(model, [1, 0, 2, 3])
    masked = masked_forward(model, INPUTS, [(group, torch.tensor([0]))], names)
    assert masked.problems[0].startswith("2 would lose other channels")
    with pytest.raises(PolicyError, match="2 would lose other channels"):
        check_same(model, INPUTS, masked)


def test_different_output_is_noticed(model: nn.Sequential) -> None:
    group, names = plan(model, [0, 1, 2, 3])
    masked = masked_forward(model, INPUTS, [(group, torch.tensor([0, 1, 2]))], names)
    with pytest.raises(PolicyError, match="its output differs"):
        check_same(model, INPUTS, masked)


def test_hooks_are_removed(model: nn.Sequential) -> None:
    before = model(*INPUTS)
    group, names = plan(model, [0, 1, 2, 3])
    masked_forward(model, INPUTS, [(group, torch.tensor([0]))], names)
    assert torch.equal(model(*INPUTS), before)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 4, 3, groups=4), True),
        (nn.Conv2d(4, 8, 3, groups=4), False),
        (nn.Conv2d(8, 4, 3, groups=4), False),
        (nn.Conv2d(1, 1, 3), False),
        (nn.Linear(4, 4), False),
    ],
    ids=["depthwise", "multiplier", "grouped", "one-channel", "linear"],
)
def test_is_depthwise(layer: nn.Module, expected: bool) -> None:
    assert is_depthwise(layer) is expected


def test_tensors_come_in_order() -> None:
    one, two, three = torch.zeros(1), torch.ones(1), torch.ones(2)
    found = tensors({"a": one, "b": (two, [three])})
    assert [id(tensor) for tensor in found] == [id(one), id(two), id(three)]
