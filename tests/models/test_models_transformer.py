"""Attention blocks: causality, folding of captions, growing caches, positions."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import keep_heads_, whole_captions

from autocomp.models.transformer import Attention, DecoderLayer, grid_positions, positions
from autocomp.models.unpadding import Unpadding


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_causal_attention_sees_nothing_later() -> None:
    attention, x = Attention(16, 4).eval(), torch.randn(2, 6, 16)
    unpadding = Unpadding(torch.ones(2, 6))
    changed = x.clone()
    changed[:, 4:] += 1
    before, after = (
        unpadding.restore(attention.attend_back(unpadding.remove(one), unpadding))
        for one in (x, changed)
    )
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_the_number_of_heads_is_read_off_the_weights() -> None:
    attention = Attention(16, 4)
    assert (attention.heads, attention.head_dim) == (4, 4)
    keep_heads_(attention, [1, 2, 3])
    assert attention.heads == 3
    assert attention(torch.randn(2, 5, 16)).shape == (2, 5, 16)


@pytest.mark.parametrize("captions", [1, 3])
def test_captions_of_one_image_do_not_see_each_other(captions: int) -> None:
    layer = DecoderLayer(16, 4, 32, dropout=0.0).eval()
    x, memory = torch.randn(2 * captions, 5, 16), torch.randn(2, 7, 16)
    together = whole_captions(layer, x, memory)
    for row in range(len(x)):
        alone = whole_captions(layer, x[row][None], memory[row // captions][None])
        torch.testing.assert_close(together[row][None], alone)


def test_steps_with_a_cache_equal_the_whole_caption() -> None:
    layer = DecoderLayer(16, 4, 32, dropout=0.0).eval()
    x, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    cross = layer.cross_attention.keys_values(memory)
    whole = whole_captions(layer, x, memory)
    keys, values = torch.zeros(2, 4, 0, 4), torch.zeros(2, 4, 0, 4)
    for place in range(5):
        out, keys, values = layer.step(x[:, place : place + 1], keys, values, *cross)
        torch.testing.assert_close(out[:, 0], whole[:, place])
        assert keys.shape == values.shape == (2, 4, place + 1, 4)


def test_positions_are_sines_and_cosines() -> None:
    table = positions(torch.arange(10), 8)
    assert table.shape == (10, 8)
    assert table[3, 0].item() == pytest.approx(math.sin(3))
    assert table[3, 1].item() == pytest.approx(math.cos(3))
    assert table[3, 4].item() == pytest.approx(math.sin(3 / 10_000 ** (4 / 8)))


@pytest.mark.parametrize(("cells", "over"), [(1, None), (3, 3), (5, 4), (4, 5)])
def test_every_cell_of_the_grid_has_its_own_position(cells: int, over: int | None) -> None:
    table = grid_positions(cells, 16, over)
    assert table.shape == (cells**2, 16)
    assert len(torch.unique(table, dim=0)) == cells**2
    same_row = table.view(cells, cells, 16)[:, :, :8]
    torch.testing.assert_close(same_row, same_row[:, :1].expand_as(same_row))


def test_a_coarser_grid_lies_over_the_same_picture() -> None:
    # the middle of the picture is the middle cell of 3 and, of 1, the only one
    torch.testing.assert_close(grid_positions(1, 16, over=3)[0], grid_positions(3, 16)[4])
