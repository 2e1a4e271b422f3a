"""Every caption metric equals that of pycocoevalcap, the COCO caption evaluation in Python."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import autocomp.evaluate.meteor as meteor_module
from autocomp.data.flickr8k import read_captions
from autocomp.evaluate.captions import CaptionScorer
from autocomp.evaluate.meteor import java_available
from autocomp.evaluate.ptb import tokenize

FLICKR8K = (
    Path(os.environ.get("AUTOCOMP_DATA", Path(__file__).parents[3] / "shared" / "data"))
    / "flickr8k"
)
WITHIN = 1e-9
COLLAPSED = "A man in a red shirt is standing in front of a building ."
WORDS = ["a", "the", "dog", "man", "red", "runs", "in", "snow", "ball", "two", "jumps", "water"]

captions = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
images = st.tuples(captions | st.just(""), st.lists(captions, min_size=1, max_size=4))

Corpus = tuple[list[str], list[list[str]]]


def assert_equal_to_pycocoevalcap(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> None:
    """The corpus's scores, and those of each image where there are such."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    given, found = joined(candidates, references)
    bleu, _ = Bleu(4).compute_score(given, found, verbose=0)
    cider, cider_each = Cider().compute_score(given, found)
    rouge, rouge_each = Rouge().compute_score(given, found)
    expected = {f"bleu_{order}": score for order, score in enumerate(bleu, start=1)}
    expected |= {"rouge_l": float(rouge), "cider": float(cider)}

    scorer = CaptionScorer(references, with_meteor=False)
    scores, each = scorer.score(candidates), scorer.per_image(candidates)
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=WITHIN)
    np.testing.assert_allclose(each["cider"], cider_each, rtol=0, atol=WITHIN)
    np.testing.assert_allclose(each["rouge_l"], rouge_each, rtol=0, atol=WITHIN)


def joined(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and candidates as pycocoevalcap takes them: tokens between spaces."""
    given = {
        index: [" ".join(tokenize(one)) for one in image] for index, image in enumerate(references)
    }
    return given, {index: [" ".join(tokenize(one))] for index, one in enumerate(candidates)}


@given(st.lists(images, min_size=1, max_size=6))
@settings(deadline=None)
def test_small_corpora(corpus: list[tuple[str, list[str]]]) -> None:
    assert_equal_to_pycocoevalcap(*zip(*corpus, strict=True))


@pytest.mark.parametrize(
    ("candidates", "references"),
    [
        pytest.param(["a dog"], [["a dog runs"]], id="one image has no rare words"),
        pytest.param(["", ""], [["a dog"], ["a man"]], id="nothing said"),
        pytest.param(["a", "the"], [["a dog"], ["the man"]], id="no bigrams"),
        pytest.param(["x y", "z"], [["a dog"], ["a man"]], id="nothing shared"),
        pytest.param(["a " * 40, "dog"], [["a dog"], ["dog " * 30]], id="far too long"),
    ],
)
def test_edges(candidates: list[str], references: list[list[str]]) -> None:
    assert_equal_to_pycocoevalcap(candidates, references)


@lru_cache
def dev_captions() -> list[tuple[str, ...]]:
    """The captions of each image of Flickr8k's dev split; none where the data are not."""
    if not FLICKR8K.is_dir():
        return []
    written = read_captions(FLICKR8K / "captions.txt")
    names = (FLICKR8K / "Flickr_8k.devImages.txt").read_text().split()
    return [written[name] for name in names if name in written]


def another_reference() -> Corpus:
    """What a person wrote of the image, held against what four others did."""
    return [image[0] for image in dev_captions()], [list(image[1:]) for image in dev_captions()]


def collapsed() -> Corpus:
    return [COLLAPSED] * len(dev_captions()), [list(image) for image in dev_captions()]


def a_bit_of_everything() -> Corpus:
    """Right, wrong, cut off, repeated, collapsed and empty captions, and uneven references."""
    source = random.Random(0)
    right, references = another_reference()
    candidates = []
    for caption in right:
        half = " ".join(caption.split()[: len(caption.split()) // 2])
        wrong = source.choice(right)
        candidates.append(source.choice([caption, wrong, half, f"{half} {half}", COLLAPSED, ""]))
    return candidates, [image[: source.randint(1, 4)] for image in references]


@pytest.mark.parametrize("corpus", [another_reference, collapsed, a_bit_of_everything])
def test_flickr8k(corpus: Callable[[], Corpus]) -> None:
    if not dev_captions():
        pytest.skip(f"needs {FLICKR8K}")
    assert_equal_to_pycocoevalcap(*corpus())


def test_meteor() -> None:
    """One JVM answers all: starting one takes longer than everything else here."""
    if not java_available():
        pytest.skip("needs Java")
    candidates = ["a man on a bike", "", "a dog runs"]
    references = [["a man on a bike"], ["a cat"], ["a dog runs in snow", "the dog"]]
    try:
        score = CaptionScorer(references).score(candidates)["meteor"]
        assert 0.3 < score < 0.9
        (original,) = meteor_module._running
        assert score == pytest.approx(original.compute_score(*joined(candidates, references))[0])
        if dev_captions():
            candidates, references = (side[:200] for side in a_bit_of_everything())
            expected, _ = original.compute_score(*joined(candidates, references))
            tokens = [[tokenize(one) for one in image] for image in references]
            score = meteor_module.meteor([tokenize(one) for one in candidates], tokens)
            assert score == pytest.approx(expected, abs=WITHIN)
    finally:
        meteor_module.stop()
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
