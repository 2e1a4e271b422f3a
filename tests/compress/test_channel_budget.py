"""How many channels go and which: rounding, one threshold over groups, the lowest first."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autocomp.compress.channel_budget import SCOPES, choose_global, choose_local, rounded_keep

sizes_and_ratios = st.lists(
    st.tuples(st.integers(1, 40), st.floats(0, 0.99)), min_size=1, max_size=6
)


def random_scores(sizes: list[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(size, generator=generator) for size in sizes]


@pytest.mark.parametrize(
    ("size", "removed", "round_to", "keep"),
    [(64, 0, 8, 64), (64, 32, 8, 32), (64, 19, 8, 48), (10, 5, 8, 8), (10, 1, 8, 10), (4, 4, 1, 1)],
    ids=["nothing", "exact", "up", "small", "never-above", "one-stays"],
)
def test_rounded_keep(size: int, removed: int, round_to: int, keep: int) -> None:
    assert rounded_keep(size, removed, round_to) == keep


@pytest.mark.parametrize("scope", list(SCOPES))
@given(groups=sizes_and_ratios, round_to=st.sampled_from([1, 4, 8]))
def test_every_choice_is_rounded_and_leaves_a_channel(
    scope: str, groups: list[tuple[int, float]], round_to: int
) -> None:
    sizes, ratios = [size for size, _ in groups], [ratio for _, ratio in groups]
    scores = random_scores(sizes)
    removed = SCOPES[scope](scores, ratios, round_to)  # type: ignore[index]
    for size, channels, values in zip(sizes, removed, scores, strict=True):
        keep = size - len(channels)
        assert keep >= 1
        assert keep == size or keep % round_to == 0
        assert channels.tolist() == sorted(set(channels.tolist()))
        stays = torch.ones(size, dtype=torch.bool)
        stays[channels] = False
        assert not len(channels) or values[channels].max() <= values[stays].min()
    total = sum(size * ratio for size, ratio in groups)
    assert sum(map(len, removed)) <= total + 1e-6


@pytest.mark.parametrize("choose", [choose_local, choose_global], ids=["local", "global"])
def test_ratio_zero_removes_nothing(choose: object) -> None:
    assert callable(choose)
    assert [len(one) for one in choose(random_scores([8, 16]), [0.0, 0.0], 1)] == [0, 0]


def test_local_follows_each_ratio() -> None:
    removed = choose_local(random_scores([10, 10, 10]), [0.3, 0.5, 0.9], 1)
    assert [len(channels) for channels in removed] == [3, 5, 9]


def test_global_removes_where_scores_are_low_whatever_their_scale() -> None:
    even = torch.linspace(0.9, 1.1, 20)
    uneven = torch.cat([torch.full((15,), 0.01), torch.full((5,), 1.0)]) * 1000
    removed = choose_global([even, uneven], [0.375, 0.375], 1)
    assert [len(channels) for channels in removed] == [0, 15]


def test_global_reaches_its_total_within_one_block() -> None:
    removed = choose_global(random_scores([64, 128, 32]), [0.4, 0.4, 0.4], 8)
    assert 0.4 * 224 - 8 <= sum(map(len, removed)) <= 0.4 * 224
