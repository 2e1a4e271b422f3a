"""Greedy and beam search over a made-up language whose best captions are known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from autocomp.deploy.caption import BOS, EOS, PAD, UNK, beam_search, generate, greedy

WORDS = (4, 5)
VOCABULARY = 6
PENALTY = 0.7


class Language:
    """Logits that depend on the image and on all tokens so far, which only the state knows."""

    def __init__(self, eos_bonus: float = 0.0, specials_bonus: float = 0.0) -> None:
        self.calls: list[str] = []
        self.bonus = np.zeros(VOCABULARY, np.float32)
        self.bonus[EOS] = eos_bonus
        self.bonus[[PAD, BOS, UNK]] = specials_bonus

    def logits(self, image: int, history: tuple[int, ...]) -> np.ndarray:
        drawn = np.random.default_rng([image, *history]).normal(size=VOCABULARY)
        return drawn.astype(np.float32) + self.bonus

    def __call__(self, name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        self.calls.append(name)
        if name == "encoder":
            ids = inputs["images"].reshape(len(inputs["images"]), -1)[:, 0]
            return {"cross_k_0": ids, "self_k_0": np.zeros((len(ids), 0), np.int64)}
        assert inputs["position"].tolist() == [inputs["self_k_0"].shape[1]]
        history = np.concatenate([inputs["self_k_0"], inputs["token"]], axis=1)
        rows = [
            self.logits(int(image), tuple(row))
            for image, row in zip(inputs["cross_k_0"], history.tolist(), strict=True)
        ]
        return {"logits": np.stack(rows), "self_k_0_next": history}


def images(*ids: int) -> np.ndarray:
    return np.array(ids, np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=3)


def captions(longest: int) -> Iterator[tuple[int, ...]]:
    """Every caption of at most `longest` steps, eos included where it fits."""
    for words in range(longest):
        yield from ((*choice, EOS) for choice in itertools.product(WORDS, repeat=words))
    yield from itertools.product(WORDS, repeat=longest)


def log_probability(language: Language, image: int, caption: tuple[int, ...]) -> float:
    total, history = 0.0, (BOS,)
    for token in caption:
        logits = language.logits(image, history)
        logits[[PAD, BOS, UNK]] = -np.inf
        total += float(logits[token] - np.log(np.exp(logits).sum()))
        history = (*history, token)
    return total


@pytest.mark.parametrize("penalty", [0.0, 0.7, 2.0])
def test_a_wide_beam_finds_the_best_caption(penalty: float) -> None:
    language, longest = Language(), 3
    found = beam_search(language, images(*range(8)), 16, longest, penalty)
    for image, caption in enumerate(found):
        best = max(
            captions(longest),
            key=lambda c: log_probability(language, image, c) / len(c) ** penalty,
        )
        assert tuple(caption) == tuple(token for token in best if token != EOS), image


def test_a_beam_is_no_worse_than_greedy() -> None:
    language = Language()
    pairs = zip(
        greedy(language, images(*range(20)), max_length=5),
        beam_search(language, images(*range(20)), beam=4, max_length=5, length_penalty=0),
        strict=True,
    )

    def score(image: int, caption: list[int]) -> float:
        ended = caption if len(caption) == 5 else [*caption, EOS]
        return log_probability(language, image, tuple(ended))

    gains = [score(i, beam) - score(i, alone) for i, (alone, beam) in enumerate(pairs)]
    assert sum(gains) > 0
    assert sum(gain >= -1e-5 for gain in gains) >= 18  # no promise, but the rule


@pytest.mark.parametrize("steps", [None, 4])
def test_a_beam_of_one_is_greedy(steps: int | None) -> None:
    alone = greedy(Language(), images(*range(12)), 6, steps)
    assert beam_search(Language(), images(*range(12)), 1, 6, PENALTY, steps) == alone
    assert len({len(caption) for caption in alone}) > 1


def test_greedy_takes_the_likeliest_token_each_time() -> None:
    language = Language()
    (caption,) = greedy(language, images(3), max_length=6)
    history: tuple[int, ...] = (BOS,)
    for token in [*caption, EOS][: 6 if len(caption) < 6 else len(caption)]:
        logits = language.logits(3, history)
        assert logits[token] == logits[[EOS, *WORDS]].max()
        history = (*history, token)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("bonus", [-20.0, 0.0, 20.0], ids=["never eos", "some", "eos at once"])
@pytest.mark.parametrize("steps", [1, 5, 9])
def test_steps_are_exactly_that_many_calls(beam: int, bonus: float, steps: int) -> None:
    language = Language(eos_bonus=bonus)
    generate(language, images(1, 2), beam, 5, PENALTY, steps)
    assert language.calls == ["encoder"] + ["decoder"] * steps


@pytest.mark.parametrize("beam", [1, 3])
def test_decoding_ends_with_the_last_caption(beam: int) -> None:
    language = Language(eos_bonus=30.0)
    assert generate(language, images(1, 2), beam, 9, length_penalty=0) == [[], []]
    # the other beams end a step after the first
    assert language.calls.count("decoder") <= 2


@pytest.mark.parametrize("beam", [1, 3, 16])
def test_special_tokens_are_never_generated(beam: int) -> None:
    language = Language(eos_bonus=-5.0, specials_bonus=50.0)
    found = generate(language, images(*range(6)), beam, 7, PENALTY)
    assert all(caption for caption in found)
    assert {token for caption in found for token in caption} <= set(WORDS)


@pytest.mark.parametrize("beam", [1, 3])
def test_an_image_gets_the_same_caption_in_a_batch_and_alone(beam: int) -> None:
    together = generate(Language(), images(*range(9)), beam, 8, PENALTY)
    assert together == [generate(Language(), images(i), beam, 8, PENALTY)[0] for i in range(9)]


@pytest.mark.parametrize("beam", [1, 2])
def test_no_caption_is_longer_than_the_longest(beam: int) -> None:
    found = generate(Language(eos_bonus=-50.0), images(1), beam, 4, PENALTY)
    assert len(found[0]) == 4
