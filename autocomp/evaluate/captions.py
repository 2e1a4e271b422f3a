"""The scores of a set of captions: BLEU, ROUGE-L, CIDEr, METEOR, and a detector of collapse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autocomp.errors import DataError, UserError
from autocomp.evaluate.bleu import Bleu
from autocomp.evaluate.cider import Cider
from autocomp.evaluate.meteor import java_available, meteor
from autocomp.evaluate.ngrams import Tokens
from autocomp.evaluate.ptb import tokenize
from autocomp.evaluate.rouge import rouge_l

SCORES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "top_caption_share")
"""What `CaptionScorer.score` always gives; `meteor` comes with Java."""


class CaptionScorer:
    """Scores captions against references that are tokenised and counted once.

    `references` holds at least one caption for each image. METEOR is computed when Java is there
    (`with_meteor=None`), always (True: an error without Java) or never (False).
    """

    def __init__(
        self, references: Sequence[Sequence[str]], with_meteor: bool | None = None
    ) -> None:
        _check_references(references)
        if with_meteor and not java_available():
            raise UserError("meteor: needs Java, but no working `java` is on the PATH")
        self.with_meteor = java_available() if with_meteor is None else with_meteor
        self._references = [[tokenize(caption) for caption in image] for image in references]
        self._bleu = Bleu(self._references)
        self._cider = Cider(self._references)

    def score(self, candidates: Sequence[str]) -> dict[str, float]:
        """The metrics of one candidate an image, in the references' order.

        bleu_1 to bleu_4, rouge_l and meteor lie in [0, 1], cider in [0, 10]; an empty caption
        scores 0. top_caption_share is the share of the images that got the most frequent caption:
        near 1 for a model that says the same of everything. Raises `UserError` if METEOR's JVM
        dies.
        """
        tokens = self._tokenized(candidates)
        bleu = self._bleu.score(tokens)
        metrics = {f"bleu_{order}": score for order, score in enumerate(bleu, start=1)}
        metrics |= {name: float(each.mean()) for name, each in self._per_image(tokens).items()}
        if self.with_meteor:
            metrics["meteor"] = meteor(tokens, self._references)
        metrics["top_caption_share"] = _top_share(tokens)
        return metrics

    def per_image(self, candidates: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """rouge_l and cider of each image: (images,), whose mean is what `score` gives.

        The others are no means: BLEU and METEOR are computed from the counts of the whole corpus.
        """
        return self._per_image(self._tokenized(candidates))

    def _per_image(self, tokens: Sequence[Tokens]) -> dict[str, NDArray[np.float64]]:
        rouge = [rouge_l(*pair) for pair in zip(tokens, self._references, strict=True)]
        return {"rouge_l": np.array(rouge), "cider": self._cider.per_image(tokens)}

    def _tokenized(self, candidates: Sequence[str]) -> list[list[str]]:
        if len(candidates) != len(self._references):
            rule = f"must be one for each of the {len(self._references)} images"
            raise UserError(f"candidates: {rule}, but got {len(candidates)}")
        return [tokenize(caption) for caption in candidates]


def _check_references(references: Sequence[Sequence[str]]) -> None:
    if not references:
        raise DataError("references: must hold at least one image, but got none")
    for index, image in enumerate(references):
        if isinstance(image, str) or not image:
            raise DataError(f"references.{index}: must be a list of captions, but got {image!r}")


def _top_share(captions: Sequence[Tokens]) -> float:
    (_, count), *_ = Counter(map(tuple, captions)).most_common(1)
    return count / len(captions)
