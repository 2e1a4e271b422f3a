"""BLEU-1 to BLEU-4 of a corpus (Papineni et al., "BLEU", ACL 2002).

The reference length of an image is that of the reference closest in length to its candidate (the
shorter of two equally close), and the constants against division by zero are pycocoevalcap's, so
the scores are those of the COCO caption evaluation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from autocomp.evaluate.ngrams import MAX_ORDER, Ngram, Tokens, ngram_counts

_TINY = 1e-15
_SMALL = 1e-9


class Bleu:
    """BLEU against one set of references, whose n-grams are counted once."""

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        self._lengths = [[len(tokens) for tokens in image] for image in references]
        self._most = [_most(image) for image in references]

    def score(self, candidates: Sequence[Tokens]) -> tuple[float, float, float, float]:
        """BLEU-1 to BLEU-4 in [0, 1] of one candidate an image, in the references' order."""
        correct = [0] * MAX_ORDER
        guessed = [0] * MAX_ORDER
        candidate_length = reference_length = 0
        for tokens, most, lengths in zip(candidates, self._most, self._lengths, strict=True):
            for ngram, count in ngram_counts(tokens).items():
                correct[len(ngram) - 1] += min(count, most.get(ngram, 0))
            for order in range(MAX_ORDER):
                guessed[order] += max(0, len(tokens) - order)
            candidate_length += len(tokens)
            reference_length += _closest(lengths, len(tokens))
        penalty = _brevity_penalty(candidate_length, reference_length)
        one, two, three, four = (penalty * mean for mean in _geometric_means(correct, guessed))
        return one, two, three, four


def _most(image: Sequence[Tokens]) -> dict[Ngram, int]:
    """The largest count of each n-gram in any one reference of the image."""
    most: Counter[Ngram] = Counter()
    for tokens in image:
        most |= ngram_counts(tokens)
    return dict(most)


def _closest(lengths: Sequence[int], length: int) -> int:
    return min(lengths, key=lambda reference: (abs(reference - length), reference))


def _geometric_means(correct: Sequence[int], guessed: Sequence[int]) -> list[float]:
    """The geometric mean of the precisions of order 1 to n, for each n."""
    product = 1.0
    means = []
    for order, (hits, total) in enumerate(zip(correct, guessed, strict=True), start=1):
        product *= (hits + _TINY) / (total + _SMALL)
        means.append(product ** (1 / order))
    return means


def _brevity_penalty(candidate_length: int, reference_length: int) -> float:
    ratio = (candidate_length + _TINY) / (reference_length + _SMALL)
    return math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
