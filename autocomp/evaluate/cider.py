"""CIDEr: how alike a caption is to its references in the words that are rare elsewhere.

Vedantam et al., "CIDEr", 1411.5726, in the form of pycocoevalcap: n-grams of order 1 to 4 weighed
by TF-IDF, a clipped cosine, a Gaussian penalty of sigma 6 on the difference in length, the mean
over orders and references times 10. Document frequencies come from the references given, so
scores of two sets of images do not compare.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autocomp.evaluate.ngrams import MAX_ORDER, Ngram, Tokens, ngram_counts

_SIGMA = 6.0
_SCALE = 10.0


@dataclass(frozen=True)
class _Vector:
    """TF-IDF weights, their norm for each order, and the number of bigrams."""

    weights: dict[Ngram, float]
    norms: list[float]
    bigrams: int


class Cider:
    """CIDEr against one set of references, whose statistics are computed once."""

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        counts = [[ngram_counts(tokens) for tokens in image] for image in references]
        self._log_images = math.log(len(references))
        self._idf = {
            ngram: self._log_images - math.log(images)
            for ngram, images in _document_frequencies(counts).items()
        }
        self._references = [[self._vector(caption) for caption in image] for image in counts]

    def score(self, candidates: Sequence[Tokens]) -> float:
        """The mean over the images of `per_image`."""
        return float(self.per_image(candidates).mean())

    def per_image(self, candidates: Sequence[Tokens]) -> NDArray[np.float64]:
        """CIDEr of one candidate an image, in the references' order: (images,), in [0, 10]."""
        if len(candidates) != len(self._references):
            rule = f"must be one for each of the {len(self._references)} images"
            raise ValueError(f"candidates: {rule}, but got {len(candidates)}")
        return np.array([self.of_image(index, tokens) for index, tokens in enumerate(candidates)])

    def of_image(self, index: int, candidate: Tokens) -> float:
        """CIDEr of one candidate for image `index`, as a self-critical reward needs it."""
        vector = self._vector(ngram_counts(candidate))
        references = self._references[index]
        total = sum(_similarity(vector, reference) for reference in references)
        return _SCALE * total / len(references)

    def _vector(self, counts: Counter[Ngram]) -> _Vector:
        weights: dict[Ngram, float] = {}
        squares = [0.0] * MAX_ORDER
        bigrams = 0
        for ngram, count in counts.items():
            weight = count * self._idf.get(ngram, self._log_images)
            weights[ngram] = weight
            squares[len(ngram) - 1] += weight * weight
            if len(ngram) == 2:
                bigrams += count
        return _Vector(weights, [math.sqrt(square) for square in squares], bigrams)


def _document_frequencies(counts: Iterable[Iterable[Counter[Ngram]]]) -> Counter[Ngram]:
    """In how many images' references each n-gram occurs."""
    frequencies: Counter[Ngram] = Counter()
    for image in counts:
        frequencies.update(set().union(*image))
    return frequencies


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """The mean over orders of the clipped cosine, times the penalty on length."""
    dots = [0.0] * MAX_ORDER
    for ngram, weight in candidate.weights.items():
        other = reference.weights.get(ngram)
        if other is not None:
            dots[len(ngram) - 1] += min(weight, other) * other
    cosines = 0.0
    for dot, left, right in zip(dots, candidate.norms, reference.norms, strict=True):
        if left and right:
            cosines += dot / (left * right)
    difference = candidate.bigrams - reference.bigrams
    return cosines / MAX_ORDER * math.exp(-(difference**2) / (2 * _SIGMA**2))
