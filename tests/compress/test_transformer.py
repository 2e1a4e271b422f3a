"""Removing heads and hidden units equals silencing them in the dense model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import whole_captions
from torch import nn

from autocomp.compress.transformer import UNIT_CRITERIA, prune_heads_, prune_width_
from autocomp.errors import PolicyError
from autocomp.models.transformer import DecoderLayer
from autocomp.models.units import UnitEnd
from autocomp.policy import PruneHeads, PruneWidth

HEADS, WIDTH, UNITS = 4, 4, 24


class Stack(nn.Module):
    """Two decoder layers that read the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(HEADS * WIDTH, HEADS, UNITS, dropout=0.0) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = whole_captions(layer, x, memory=x)
        return x


@pytest.fixture
def stack() -> Stack:
    torch.manual_seed(0)
    return Stack().eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 5, HEADS * WIDTH, generator=torch.Generator().manual_seed(1))


def silenced(linear: nn.Linear, units: list[int], by: float) -> None:
    with torch.no_grad():
        linear.weight[:, units] *= by


@torch.no_grad()
def test_pruned_heads_compute_what_the_dense_ones_do_when_silenced(
    stack: Stack, x: torch.Tensor
) -> None:
    for layer in stack.layers:
        for attention, weakest in ((layer.self_attention, 2), (layer.cross_attention, 0)):
            for projection in (attention.q, attention.k, attention.v):
                projection.weight[weakest * WIDTH : (weakest + 1) * WIDTH] *= 1e-3
            silenced(attention.o, list(range(weakest * WIDTH, (weakest + 1) * WIDTH)), by=0)
    expected = stack(x)
    assert prune_heads_(stack, PruneHeads(layers="**", ratio=0.25)) == []
    assert [layer.self_attention.heads for layer in stack.layers] == [3, 3]
    torch.testing.assert_close(stack(x), expected)


@torch.no_grad()
def test_pruned_units_compute_what_the_dense_ones_do_when_silenced(
    stack: Stack, x: torch.Tensor
) -> None:
    weakest = [1, 2, 3, 10, 11, 12, 20, 23]
    for layer in stack.layers:
        layer.ffn.up.weight[weakest] *= 1e-3
        silenced(layer.ffn.down, weakest, by=0)
    expected = stack(x)
    assert prune_width_(stack, PruneWidth(layers="**", ratio=0.34, round_to=8)) == []
    assert [layer.ffn.up.out_features for layer in stack.layers] == [16, 16]
    torch.testing.assert_close(stack(x), expected)


@pytest.mark.parametrize(
    ("prune_", "step"),
    [
        (prune_heads_, PruneHeads(layers="**", ratio=0)),
        (prune_width_, PruneWidth(layers="**", ratio=0, round_to=8)),
        (prune_heads_, PruneHeads(layers="**", ratio={"elsewhere": 0.5})),
    ],
    ids=["heads", "width", "ratio of another layer"],
)
def test_ratio_0_is_the_identity(prune_: Any, step: Any, stack: Stack) -> None:
    before = dict(stack.named_parameters())
    assert prune_(stack, step) == []
    assert all(parameter is before[name] for name, parameter in stack.named_parameters())


@pytest.mark.parametrize(
    ("ratio", "kept"), [(0.24, 4), (0.25, 3), (0.26, 3), (0.5, 2), (0.75, 1), (0.99, 1)]
)
def test_at_least_one_head_stays(ratio: float, kept: int, stack: Stack) -> None:
    prune_heads_(stack, PruneHeads(layers="layers.1.self_attention", ratio=ratio))
    assert stack.layers[0].self_attention.heads == HEADS
    assert stack.layers[1].self_attention.heads == kept
    assert stack.layers[1].self_attention.o.in_features == kept * WIDTH


@pytest.mark.parametrize(
    ("ratio", "round_to", "kept"),
    [(0.5, 1, 12), (0.5, 8, 16), (0.34, 8, 16), (1 / 3, 8, 16), (0.99, 8, 8), (0.99, 1, 1)],
)
def test_units_are_rounded_up(ratio: float, round_to: int, kept: int, stack: Stack) -> None:
    prune_width_(stack, PruneWidth(layers="layers.0.ffn", ratio=ratio, round_to=round_to))
    assert stack.layers[0].ffn.up.weight.shape == (kept, HEADS * WIDTH)
    assert stack.layers[0].ffn.down.weight.shape == (HEADS * WIDTH, kept)
    assert stack.layers[1].ffn.up.out_features == UNITS


def test_what_rounds_to_nothing_is_reported(stack: Stack) -> None:
    heads = prune_heads_(stack, PruneHeads(layers="layers.0.self_attention", ratio=0.2))
    width = prune_width_(stack, PruneWidth(layers="layers.1.ffn", ratio=0.2))
    assert heads == ["layers.0.self_attention: 0.2 of 4 heads is less than one"]
    assert width == ["layers.1.ffn: 0.2 of 24 units, rounded to 32, removes none"]


@pytest.mark.parametrize(
    ("criterion", "scores"),
    [("l1", [7, 5, 0]), ("l2", [5, 5, 0]), ("taylor", [3, 0, 0])],
)
def test_scores_of_units(criterion: str, scores: list[float]) -> None:
    up, down = nn.Linear(2, 3), nn.Linear(3, 2)
    up.weight = nn.Parameter(torch.tensor([[3.0, 0], [5, 0], [0, 0]]))
    down.weight = nn.Parameter(torch.tensor([[0.0, 0, 0], [4, 0, 0]]))
    up.weight.grad = torch.tensor([[1.0, 0], [0, 9], [9, 9]])
    down.weight.grad = torch.tensor([[9.0, 0, 0], [-1.5, 9, 9]])
    ends = [UnitEnd(up, 0), UnitEnd(down, 1)]
    found = UNIT_CRITERIA[criterion](ends, torch.Generator())
    assert found.tolist() == pytest.approx(scores)


def test_a_unit_that_lies_in_several_blocks_has_one_score() -> None:
    gates = nn.Linear(2, 4)
    gates.weight = nn.Parameter(torch.tensor([[1.0, 1], [2, 0], [0, 3], [0, 0]]))
    found = UNIT_CRITERIA["l1"]([UnitEnd(gates, 0, blocks=2)], torch.Generator())
    assert found.tolist() == [5, 2]


def test_taylor_removes_what_the_loss_does_not_depend_on(stack: Stack, x: torch.Tensor) -> None:
    for layer in stack.layers:
        with torch.no_grad():
            layer.ffn.up.weight[5] *= 100
            layer.ffn.down.weight[:, 5] = 0
            layer.self_attention.v.weight[:WIDTH] *= 100
            layer.self_attention.o.weight[:, :WIDTH] = 0
    stack(x).square().sum().backward()
    dead_row = stack.layers[0].ffn.up.weight[5].detach().clone()
    prune_heads_(stack, PruneHeads(layers="**.self_attention", ratio=0.25, criterion="taylor"))
    prune_width_(stack, PruneWidth(layers="**", ratio=0.05, criterion="taylor", round_to=1))
    for layer in stack.layers:
        assert layer.self_attention.v.weight.abs().max() < 10
        assert layer.ffn.up.weight.abs().max() < 10
    assert not any(torch.equal(row, dead_row) for row in stack.layers[0].ffn.up.weight)


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)], ids=["same seed", "other seed"])
def test_random_depends_on_the_seed_alone(seeds: tuple[int, int]) -> None:
    step = PruneWidth(layers="**", ratio=0.5, criterion="random", round_to=4)
    kept = []
    for seed in seeds:
        torch.manual_seed(0)
        stack = Stack()
        torch.manual_seed(seed + 100)
        prune_width_(stack, step, seed)
        kept.append(stack.layers[0].ffn.up.weight.detach())
    assert torch.equal(*kept) == (seeds[0] == seeds[1])


@pytest.mark.parametrize(
    ("prune_", "step", "message"),
    [
        (prune_heads_, PruneHeads(layers="layer.0", ratio=0.5), "nearest: layers.0"),
        (prune_width_, PruneWidth(layers="layers.0.self_attention", ratio=0.5), "matches none"),
    ],
    ids=["typing error", "no feed-forward"],
)
def test_a_pattern_that_means_nothing_is_an_error(
    prune_: Any, step: Any, message: str, stack: Stack
) -> None:
    with pytest.raises(PolicyError, match=message):
        prune_(stack, step)
