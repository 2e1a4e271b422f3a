"""From images to token ids with the encoder and decoder graphs, in numpy: greedy and beam search.

The encoder graph returns the whole state of the decoder (cross keys and values, empty caches); the
decoder graph takes a token, its position and that state, and returns logits and what has changed of
the state. So nothing here depends on how many layers or heads a compressed model has kept.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from autocomp.data.tokenizer import BOS, EOS, PAD, UNK
from autocomp.decisions import Decision
from autocomp.tasks.base import Run

State = dict[str, np.ndarray]


class Generation(Decision):
    """How captions are generated, for quality, latency, export and verify alike."""

    beam: int = Field(default=1, ge=1, le=16)
    max_length: int = Field(default=20, ge=1, le=256)
    length_penalty: float = Field(default=0.7, ge=0)


def generate(
    run: Run, images: np.ndarray, settings: Generation, steps: int | None = None
) -> list[list[int]]:
    """Token ids, without bos and eos, for images (B, H, W, 3).

    With `steps` exactly that many tokens are decoded, whatever they are: the same work for every
    model, so that short captions don't pass for speed.
    """
    decode = greedy if settings.beam == 1 else beam_search
    return decode(run, images, settings, steps)


def greedy(
    run: Run, images: np.ndarray, settings: Generation, steps: int | None = None
) -> list[list[int]]:
    """The likeliest token at each step; all images of the batch in step."""
    state = run("encoder", images=images)
    tokens = np.full((len(images), 1), BOS, dtype=np.int64)
    chosen: list[np.ndarray] = []
    finished = np.zeros(len(images), dtype=bool)
    for position in range(steps or settings.max_length):
        tokens = _step(run, tokens, position, state).argmax(axis=1, keepdims=True)  # (B, 1)
        chosen.append(tokens)
        finished |= tokens[:, 0] == EOS
        if steps is None and finished.all():
            break
    return [_until_eos(row) for row in np.concatenate(chosen, axis=1).tolist()]


def beam_search(
    run: Run, images: np.ndarray, settings: Generation, steps: int | None = None
) -> list[list[int]]:
    """The likeliest of `beam` captions an image, log-probability / length^penalty (1609.08144)."""
    beam, count = settings.beam, len(images)
    state = {name: np.repeat(a, beam, axis=0) for name, a in run("encoder", images=images).items()}
    tokens = np.full((count * beam, 1), BOS, dtype=np.int64)
    history = np.zeros((count * beam, 0), dtype=np.int64)
    # all beams start equal: only the first may speak at the first step
    scores = np.full((count, beam), -np.inf, dtype=np.float32)
    scores[:, 0] = 0
    finished = np.zeros((count, beam), dtype=bool)
    for position in range(steps or settings.max_length):
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
    final = scores / lengths.reshape(count, beam) ** settings.length_penalty
    best = history[np.arange(count) * beam + final.argmax(axis=1)]
    return [_until_eos(row) for row in best.tolist()]


def _step(run: Run, tokens: np.ndarray, position: int, state: State) -> np.ndarray:
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
