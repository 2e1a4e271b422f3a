"""Attention and feed-forward blocks whose heads and hidden units can be removed.

Pre-norm, as in "On Layer Normalization in the Transformer Architecture" (2002.04745). The query,
key, value and output projections are separate, so a head is a block of rows of three of them and
a block of columns of the fourth. The number of heads is read off the weights: it cannot go stale.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocomp.models.units import HiddenUnits, UnitEnd
from autocomp.models.unpadding import Unpadding


class Attention(nn.Module):
    """Multi-head attention from `d_model` to `d_model` with heads of `head_dim`."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.head_dim = d_model // heads
        self.q = nn.Linear(d_model, d_model)
        self.k = nn.Linear(d_model, d_model)
        self.v = nn.Linear(d_model, d_model)
        self.o = nn.Linear(d_model, d_model)

    @property
    def heads(self) -> int:
        return self.q.weight.shape[0] // self.head_dim

    def split(self, x: Tensor) -> Tensor:
        """(B, T, heads * head_dim) -> (B, heads, T, head_dim)."""
        if x.shape[1] == 1:  # the order in memory is the same: one token costs no transposition
            return x.reshape(x.shape[0], self.heads, 1, self.head_dim)
        return x.reshape(x.shape[0], -1, self.heads, self.head_dim).transpose(1, 2)

    def join(self, x: Tensor) -> Tensor:
        """(B, heads, T, head_dim) -> (B, T, heads * head_dim)."""
        if x.shape[2] == 1:
            return x.reshape(x.shape[0], 1, self.heads * self.head_dim)
        return x.transpose(1, 2).reshape(x.shape[0], -1, self.heads * self.head_dim)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of `x` (B, S, d), each (B, heads, S, head_dim)."""
        return self.split(self.k(x)), self.split(self.v(x))

    def attend(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend from `x` (B, T, d) to the given keys and values; (B, T, d)."""
        mixed = functional.scaled_dot_product_attention(self.split(self.q(x)), keys, values)
        return self.o(self.join(mixed))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Attend from all of `x` (B, S, d) to all of it; (B, S, d)."""
        return self.attend(x, *self.keys_values(x))

    def attend_back(self, x: Tensor, unpadding: Unpadding) -> Tensor:
        """Attend from each token of `x` (P, d) to those of its caption up to it; (P, d)."""
        queries, keys, values = (
            self.split(unpadding.restore(part(x))) for part in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return self.o(unpadding.remove(self.join(mixed)))  # type: ignore[no-any-return]

    def attend_image(self, x: Tensor, keys: Tensor, values: Tensor, unpadding: Unpadding) -> Tensor:
        """Attend from each token of `x` (P, d) to the keys and values of its image; (P, d)."""
        queries = unpadding.restore(self.q(x))
        # this has no order, so the K captions of an image are one long query
        folded = queries.view(len(keys), -1, queries.shape[-1])  # (B, K * T, heads * head_dim)
        mixed = functional.scaled_dot_product_attention(self.split(folded), keys, values)
        return self.o(unpadding.remove(self.join(mixed)))  # type: ignore[no-any-return]


class FeedForward(HiddenUnits):
    """Two linear layers with a GELU between; `ffn` hidden units."""

    def __init__(self, d_model: int, ffn: int) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, ffn)
        self.down = nn.Linear(ffn, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x)))  # type: ignore[no-any-return]

    def unit_ends(self) -> list[UnitEnd]:
        return [UnitEnd(self.up, 0), UnitEnd(self.down, 1)]


class EncoderLayer(nn.Module):
    """Self-attention over the grid, then a feed-forward block; (B, S, d) -> (B, S, d)."""

    def __init__(self, d_model: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_model)
        self.self_attention = Attention(d_model, heads)
        self.ffn_norm = nn.LayerNorm(d_model)
        self.ffn = FeedForward(d_model, ffn)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.self_attention(self.attention_norm(x)))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention to the image, feed-forward."""

    def __init__(self, d_model: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(d_model)
        self.self_attention = Attention(d_model, heads)
        self.cross_norm = nn.LayerNorm(d_model)
        self.cross_attention = Attention(d_model, heads)
        self.ffn_norm = nn.LayerNorm(d_model)
        self.ffn = FeedForward(d_model, ffn)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, cross_keys: Tensor, cross_values: Tensor, unpadding: Unpadding
    ) -> Tensor:
        """Train on whole captions: their tokens x (P, d), K captions for each of B images."""
        x = x + self.dropout(self.self_attention.attend_back(self.self_norm(x), unpadding))
        look = self.cross_attention.attend_image
        x = x + self.dropout(look(self.cross_norm(x), cross_keys, cross_values, unpadding))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))  # type: ignore[no-any-return]

    def step(
        self, x: Tensor, keys: Tensor, values: Tensor, cross_keys: Tensor, cross_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One token x (B, 1, d) more; the keys and values of those before come back longer."""
        normed = self.self_norm(x)
        new_keys, new_values = self.self_attention.keys_values(normed)
        keys = torch.cat([keys, new_keys], dim=2)  # (B, heads, T + 1, head_dim)
        values = torch.cat([values, new_values], dim=2)
        x = x + self.self_attention.attend(normed, keys, values)
        x = x + self.cross_attention.attend(self.cross_norm(x), cross_keys, cross_values)
        return x + self.ffn(self.ffn_norm(x)), keys, values


def positions(places: Tensor, d_model: int) -> Tensor:
    """Sinusoidal positions (N, d_model) of `places` (N,), 1706.03762."""
    rates = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10_000.0) / d_model))
    angles = places.unsqueeze(1) * rates  # (N, d_model / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(len(places), -1)[:, :d_model]


def grid_positions(cells: int, d_model: int, over: int | None = None) -> Tensor:
    """Positions of a square grid's cells (cells^2, d_model): half for the row, half for the column.

    With `over` they lie where the cells of a grid of `over` x `over` would, of the same picture.
    """
    half = d_model // 2
    places = torch.arange(cells).float()
    if over is not None and over != cells:
        places = (places + 0.5) * (over / cells) - 0.5  # the middles of larger cells
    rows = positions(places, half).unsqueeze(1).expand(cells, cells, half)
    columns = positions(places, d_model - half).unsqueeze(0).expand(cells, cells, d_model - half)
    return torch.cat([rows, columns], dim=2).reshape(cells * cells, d_model)
