"""Captions of a training batch without most of the padding at their ends.

What sees each token alone computes the tokens only: "unpadding", as in ModernBERT (2412.13663).
"""

from __future__ import annotations

import torch
from torch import Tensor

from autocomp.deploy.caption import PAD

BLOCK = 64
"""Tokens are computed in a multiple of so many; see `Unpadding`."""


class Unpadding:
    """Where captions `tokens` (N, T) have something to compute: P of the N * T places.

    They are the tokens of each caption and as much padding as fills a block: for a number of rows
    that a matrix product in bf16 has not seen, oneDNN writes a kernel first, and that takes longer
    than the product.
    """

    def __init__(self, tokens: Tensor) -> None:
        captions, steps = tokens.shape
        places = torch.arange(steps, device=tokens.device)
        is_padding = (places >= caption_lengths(tokens)[:, None]).flatten()
        count = -(-(captions * steps - int(is_padding.sum())) // BLOCK) * BLOCK
        self.shape = captions, steps
        self.places = is_padding.argsort(stable=True)[:count]  # (P,), those of tokens first

    def remove(self, padded: Tensor) -> Tensor:
        """(N, T, d), or as many places under another shape, to (P, d)."""
        return padded.reshape(-1, padded.shape[-1]).index_select(0, self.places)

    def restore(self, values: Tensor) -> Tensor:
        """(P, d) to (N, T, d), with zeros elsewhere."""
        captions, steps = self.shape
        padded = values.new_zeros(captions * steps, values.shape[-1])
        return padded.index_copy(0, self.places, values).view(captions, steps, -1)


def caption_lengths(tokens: Tensor) -> Tensor:
    """How many tokens each of `tokens` (N, T) has before the padding at its end (N,)."""
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return (places * (tokens != PAD)).amax(dim=1)
