"""Captions photos with the model beside this file: `python caption.py photo.jpg ...`.

Needs Python 3.10, onnxruntime, numpy and Pillow, and in its folder encoder.onnx, decoder.onnx,
tokenizer.json and preprocessing.json. From Python:

    from caption import Captioner
    Captioner().caption("photo.jpg")

autocomp measures models with what stands here: what a model says here is what it said there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autocomp.deploy.photos import (
    Photo,
    Run,
    Unusable,
    main,
    open_session,
    read_json,
    read_photo,
    runner,
)

PAD, BOS, EOS, UNK = range(4)
"""The first words of every vocabulary: padding, begin, end, unknown."""


class Captioner:
    """The captioner in `folder`, on as many threads as it was measured on.

    `Unusable` if one of its files is missing or damaged.
    """

    def __init__(self, folder: str | os.PathLike[str] = Path(__file__).parent) -> None:
        folder = Path(folder)
        settings = read_json(folder / "preprocessing.json")
        words = read_json(folder / "tokenizer.json")
        try:
            self.image_size: int = settings["image_size"]
            self.generation: dict[str, Any] = settings["generation"]
            self.words: list[str] = words["words"]
            threads: int = settings["threads"]
        except (KeyError, TypeError) as lack:
            raise Unusable(f"{folder}: must be as autocomp wrote it, but lacks {lack}") from None
        graphs = ("encoder", "decoder")
        self.run = runner({one: open_session(folder / f"{one}.onnx", threads) for one in graphs})

    def caption(self, photo: Photo) -> str:
        """The caption of a photo, a file or the bytes of one; `Unusable` if it is no image."""
        (tokens,) = generate(self.run, read_photo(photo, self.image_size), **self.generation)
        return sentence(tokens, self.words)

    def answer(self, photo: Photo) -> tuple[str, dict[str, str]]:
        """The caption as a line, and as what `--json` prints."""
        said = self.caption(photo)
        return said, {"caption": said}


def generate(
    run: Run,
    images: np.ndarray,
    beam: int,
    max_length: int,
    length_penalty: float,
    steps: int | None = None,
) -> list[list[int]]:
    """Token ids, without bos and eos, for images (B, H, W, 3).

    The encoder graph returns the whole state of the decoder; the decoder graph takes a token, its
    position and that state, and returns logits and what has changed of the state: nothing here
    depends on the layers or heads a model has kept. With `steps` exactly that many tokens are
    decoded, whatever they are, so that short captions don't pass for speed.
    """
    if beam == 1:
        return greedy(run, images, max_length, steps)
    return beam_search(run, images, beam, max_length, length_penalty, steps)


def greedy(
    run: Run, images: np.ndarray, max_length: int, steps: int | None = None
) -> list[list[int]]:
    """The likeliest token at each step; all images of the batch in step."""
    state = run("encoder", images=images)
    tokens = np.full((len(images), 1), BOS, dtype=np.int64)
    chosen: list[np.ndarray] = []
    finished = np.zeros(len(images), dtype=bool)
    for position in range(steps or max_length):
        tokens = _step(run, tokens, position, state).argmax(axis=1, keepdims=True)  # (B, 1)
        chosen.append(tokens)
        finished |= tokens[:, 0] == EOS
        if steps is None and finished.all():
            break
    return [_until_eos(row) for row in np.concatenate(chosen, axis=1).tolist()]


def beam_search(
    run: Run,
    images: np.ndarray,
    beam: int,
    max_length: int,
    length_penalty: float,
    steps: int | None = None,
) -> list[list[int]]:
    """The likeliest of `beam` captions an image, log-probability / length^penalty (1609.08144)."""
    count = len(images)
    state = {name: np.repeat(a, beam, axis=0) for name, a in run("encoder", images=images).items()}
    tokens = np.full((count * beam, 1), BOS, dtype=np.int64)
    history = np.zeros((count * beam, 0), dtype=np.int64)
    # all beams start equal: only the first may speak at the first step
    scores = np.full((count, beam), -np.inf, dtype=np.float32)
    scores[:, 0] = 0
    finished = np.zeros((count, beam), dtype=bool)
    for position in range(steps or max_length):
        log_p = _log_softmax(_step(run, tokens, position, state)).reshape(count, beam, -1)
        scores, parents, words = _best(scores, log_p, finished)
        rows = (np.arange(count)[:, None] * beam + parents).reshape(-1)
        finished = finished.reshape(-1)[rows].reshape(count, beam) | (words == EOS)
        tokens = words.reshape(-1, 1)
        history = np.concatenate([history[rows], tokens], axis=1)
        state = {name: array[rows] for name, array in state.items()}
        if steps is None and finished.all():
            break
    # words and the eos, which a caption that was cut off lacks
    words_before_eos = (np.cumsum(history == EOS, axis=1) == 0).sum(axis=1)
    lengths = np.minimum(words_before_eos + 1, history.shape[1])
    final = scores / lengths.reshape(count, beam) ** length_penalty
    best = history[np.arange(count) * beam + final.argmax(axis=1)]
    return [_until_eos(row) for row in best.tolist()]


def _step(run: Run, tokens: np.ndarray, position: int, state: dict[str, np.ndarray]) -> np.ndarray:
    """Logits (B, V) after `tokens` (B, 1); `state` moves on. Only words and eos can be chosen."""
    outputs = run("decoder", token=tokens, position=np.array([position], dtype=np.int64), **state)
    logits = outputs.pop("logits")
    state.update({name.removesuffix("_next"): array for name, array in outputs.items()})
    # three slices take half the time of one list of columns, once a token
    logits[:, PAD] = logits[:, BOS] = logits[:, UNK] = -np.inf
    return logits


def _best(
    scores: np.ndarray, log_p: np.ndarray, finished: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `beam` best continuations: scores, parent beams and words, each (B, beam)."""
    count, beam, words = log_p.shape
    # a finished caption goes on with eos at no cost
    log_p = np.where(finished[:, :, None], np.float32(-np.inf), log_p)
    log_p[:, :, EOS] = np.where(finished, 0, log_p[:, :, EOS])
    total = (scores[:, :, None] + log_p).reshape(count, beam * words)
    top = np.argsort(-total, axis=1, kind="stable")[:, :beam]
    return np.take_along_axis(total, top, axis=1), top // words, top % words


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _until_eos(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS)] if EOS in tokens else tokens


def sentence(tokens: Iterable[int], words: Sequence[str]) -> str:
    """The words up to the first end mark, with single spaces; special ids leave no trace."""
    return " ".join(words[token] for token in _until_eos(list(tokens)) if token > UNK)


if __name__ == "__main__":
    sys.exit(main("Caption", lambda: Captioner().answer))
