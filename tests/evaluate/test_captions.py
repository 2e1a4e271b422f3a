"""Caption metrics at known values, and what must hold of any scores."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocomp.errors import DataError, UserError
from autocomp.evaluate.bleu import Bleu
from autocomp.evaluate.captions import CaptionScorer
from autocomp.evaluate.cider import Cider
from autocomp.evaluate.rouge import rouge_l

WORDS = ["a", "the", "dog", "man", "red", "runs", "in", "snow", "ball", "two", "jumps", "water"]
KEYS = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "top_caption_share"]

captions = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
corpora = st.lists(st.lists(captions, min_size=1, max_size=4), min_size=1, max_size=6)


def words(text: str) -> list[str]:
    return text.split()


def random_corpus(seed: int, images: int = 40) -> tuple[list[str], list[list[str]]]:
    """Candidates that share words with references of uneven number and length; some are empty."""
    source = random.Random(seed)

    def caption(shortest: int) -> str:
        return " ".join(source.choices(WORDS, k=source.randint(shortest, 14)))

    references = [[caption(1) for _ in range(source.randint(1, 5))] for _ in range(images)]
    candidates = [
        source.choice(image) if source.random() < 0.3 else caption(0) for image in references
    ]
    return candidates, references


def own_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    return CaptionScorer(references, with_meteor=False).score(candidates)


def test_bleu_clips_repeated_words() -> None:
    """Papineni et al.'s example: of seven "the" two are right."""
    references = [words("the cat is on the mat"), words("there is a cat on the mat")]
    assert Bleu([references]).score([["the"] * 7])[0] == pytest.approx(2 / 7)


def test_bleu_takes_the_closest_reference_length() -> None:
    """Two words against references of one and of four: the shorter, so no brevity penalty."""
    references = [["a"], ["a", "dog", "runs", "fast"]]
    assert Bleu([references]).score([["a", "dog"]])[0] == pytest.approx(1.0)
    assert Bleu([references[1:]]).score([["a", "dog"]])[0] == pytest.approx(np.exp(1 - 4 / 2))


@pytest.mark.parametrize(
    ("candidate", "references", "score"),
    [
        pytest.param("a b c d", ["a b c d"], 1.0, id="same"),
        pytest.param("a b c d", ["a x c y"], 0.5, id="half"),
        pytest.param("c a", ["a b c"], 2.44 / 6 / (1 / 3 + 1.44 / 2), id="order"),
        pytest.param("a b", ["a b c d", "a"], 1.0, id="best of each"),
        pytest.param("a", ["b"], 0.0, id="nothing"),
        pytest.param("", ["a"], 0.0, id="empty"),
        pytest.param("a", [""], 0.0, id="empty reference"),
    ],
)
def test_rouge_l(candidate: str, references: list[str], score: float) -> None:
    assert rouge_l(words(candidate), list(map(words, references))) == pytest.approx(score)


def test_cider_is_ten_for_the_only_reference() -> None:
    references = [[words("a dog runs in snow")], [words("two men jump over water")]]
    assert Cider(references).per_image([image[0] for image in references]) == pytest.approx(10.0)


def test_cider_ignores_words_of_every_image() -> None:
    references = [[["the", "dog"]], [["the", "man"]]]
    cider = Cider(references)
    assert cider.of_image(0, ["the"]) == 0
    assert cider.of_image(0, ["dog"]) > 0
    assert cider.of_image(0, ["man"]) == 0


@given(corpora)
def test_perfect_candidates(references: list[list[str]]) -> None:
    scores = own_scores([image[0] for image in references], references)
    assert scores["bleu_1"] == pytest.approx(1.0)
    assert scores["rouge_l"] == pytest.approx(1.0)


@given(corpora, st.data())
def test_scores_lie_in_their_ranges(references: list[list[str]], data: st.DataObject) -> None:
    count = len(references)
    candidates = data.draw(st.lists(captions | st.just(""), min_size=count, max_size=count))
    scores = own_scores(candidates, references)
    assert list(scores) == KEYS
    for name, score in scores.items():
        assert 0 <= score <= (10 if name == "cider" else 1) + 1e-9, name


@given(corpora, st.data())
def test_the_order_of_images_and_references_is_no_matter(
    references: list[list[str]], data: st.DataObject
) -> None:
    count = len(references)
    candidates = data.draw(st.lists(captions, min_size=count, max_size=count))
    order = data.draw(st.permutations(range(count)))
    shuffled = [references[index][::-1] for index in order]
    expected = own_scores(candidates, references)
    scores = own_scores([candidates[index] for index in order], shuffled)
    assert scores == pytest.approx(expected)


def test_per_image_is_what_the_metrics_average() -> None:
    candidates, references = random_corpus(seed=1)
    scorer = CaptionScorer(references, with_meteor=False)
    scores = scorer.score(candidates)
    for name, each in scorer.per_image(candidates).items():
        assert each.shape == (len(references),)
        assert each.mean() == pytest.approx(scores[name]), name


def test_scoring_leaves_the_scorer_as_it_was() -> None:
    candidates, references = random_corpus(seed=2)
    scorer = CaptionScorer(references, with_meteor=False)
    first = scorer.score(candidates)
    scorer.score(["something else"] * len(references))
    assert scorer.score(candidates) == first


@pytest.mark.parametrize(
    ("candidates", "share"),
    [
        pytest.param(["a dog", "a man", "a cat", "snow"], 0.25, id="all differ"),
        pytest.param(["A dog .", "a dog", "a man", ""], 0.5, id="case and punctuation aside"),
        pytest.param([""] * 4, 1.0, id="silent"),
    ],
)
def test_top_caption_share(candidates: list[str], share: float) -> None:
    scores = own_scores(candidates, [["a dog"]] * 4)
    assert scores["top_caption_share"] == share


def test_refuses_references_without_captions() -> None:
    with pytest.raises(DataError, match=r"references: must hold at least one image, but got none"):
        CaptionScorer([])
    with pytest.raises(DataError, match=r"references\.1: must be a list of captions, but got \[\]"):
        CaptionScorer([["a dog"], []])
    with pytest.raises(DataError, match=r"references\.0: .* but got 'a dog'"):
        CaptionScorer(["a dog"])


def test_refuses_another_number_of_candidates() -> None:
    scorer = CaptionScorer([["a dog"], ["a man"]], with_meteor=False)
    for scores in (scorer.score, scorer.per_image):
        with pytest.raises(UserError, match=r"candidates: must be one for each of the 2 images"):
            scores(["a dog"])
