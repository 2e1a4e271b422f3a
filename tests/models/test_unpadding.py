"""Captions without their padding: which places are computed, and the way there and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autocomp.deploy.caption import BOS, PAD
from autocomp.models.unpadding import BLOCK, Unpadding, caption_lengths


def captions(lengths: list[int], steps: int) -> torch.Tensor:
    return torch.where(torch.arange(steps) < torch.tensor(lengths)[:, None], BOS, PAD)


@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.integers(0, n), min_size=1, max_size=40)))
def test_every_token_is_computed_and_padding_only_to_fill_a_block(lengths: list[int]) -> None:
    tokens = captions(lengths, steps=12)
    assert caption_lengths(tokens).tolist() == lengths
    unpadding = Unpadding(tokens)
    computed = set(unpadding.places.tolist())
    assert len(computed) == len(unpadding.places)
    assert set((tokens.flatten() != PAD).nonzero().flatten().tolist()) <= computed
    assert len(computed) == min(tokens.numel(), -(-sum(lengths) // BLOCK) * BLOCK)


def test_values_come_back_where_they_were_with_gradients() -> None:
    tokens = captions([3, 40, 11], steps=40)
    x = torch.randn(3, 40, 4, requires_grad=True)
    unpadding = Unpadding(tokens)
    values = unpadding.remove(x)
    assert values.shape == (BLOCK, 4)
    back = unpadding.restore(values)
    is_computed = torch.zeros(120).index_fill(0, unpadding.places, 1).view(3, 40, 1)
    assert torch.equal(back, x * is_computed)
    back.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, is_computed.expand_as(x))


@pytest.mark.parametrize("place", [0, 1, 3], ids=["first", "second", "last but one"])
def test_padding_before_a_token_is_computed_as_before(place: int) -> None:
    tokens = captions([5], steps=8)
    tokens[0, place] = PAD
    assert caption_lengths(tokens).tolist() == [5]
