"""Counting the n-grams of a caption: what BLEU and CIDEr both start from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

MAX_ORDER = 4

Tokens = Sequence[str]
Ngram = tuple[str, ...]


def ngram_counts(tokens: Tokens) -> Counter[Ngram]:
    """How often each n-gram of order 1 to 4 occurs in `tokens`."""
    counts: Counter[Ngram] = Counter()
    for order in range(1, MAX_ORDER + 1):
        counts.update(zip(*(tokens[start:] for start in range(order)), strict=False))
    return counts
