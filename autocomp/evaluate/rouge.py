"""ROUGE-L: how long a subsequence of words a caption shares with its references.

Lin, "ROUGE", 2004, in the form of the COCO caption evaluation (1504.00325): the best precision
and the best recall over an image's references, which need not come from the same one, joined by
an F-measure with beta = 1.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from autocomp.evaluate.ngrams import Tokens

_BETA_SQUARED = 1.2**2


def rouge_l(candidate: Tokens, references: Sequence[Tokens]) -> float:
    """ROUGE-L in [0, 1] of one candidate against the references of its image."""
    places = _places(candidate)
    precision = recall = 0.0
    for reference in references:
        shared = _common_length(places, len(candidate), reference)
        if shared:
            precision = max(precision, shared / len(candidate))
            recall = max(recall, shared / len(reference))
    if not precision:
        return 0.0
    return (1 + _BETA_SQUARED) * precision * recall / (recall + _BETA_SQUARED * precision)


def _places(tokens: Tokens) -> dict[str, int]:
    """For each word, an integer whose bit i says whether it stands at place i."""
    places: dict[str, int] = {}
    for index, token in enumerate(tokens):
        places[token] = places.get(token, 0) | 1 << index
    return places


def _common_length(places: dict[str, int], length: int, other: Tokens) -> int:
    """The length of the longest common subsequence, a row of the table at a time as bits.

    Hyyrö, "Bit-parallel LCS-length computation revisited", 2004: a zero in `row` is a place where
    the length grows by one.
    """
    full = (1 << length) - 1
    row = full
    for token in other:
        matches = row & places.get(token, 0)
        row = (row + matches) | (row - matches)
    return length - (row & full).bit_count()
