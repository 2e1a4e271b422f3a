"""Captions photos with the model beside this file: `python caption.py photo.jpg ...`.

Needs Python 3.10, onnxruntime, numpy and Pillow, and in its folder encoder.onnx, decoder.onnx,
tokenizer.json and preprocessing.json. From Python:

    from caption import Captioner
    Captioner().caption("photo.jpg")

A module of autocomp, which measures models with it, and copied as it is into every checkpoint of a
captioner: what it says here is what it said there. So it imports nothing else of autocomp.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it is read once, when this is imported:
import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from PIL import Image, ImageOps, UnidentifiedImageError

PAD, BOS, EOS, UNK = range(4)
"""The first words of every vocabulary: padding, begin, end, unknown."""

Run = Callable[..., dict[str, np.ndarray]]
"""`run(graph, **inputs)`: the outputs of one graph, by name."""

_LOAD_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    UnicodeDecodeError,  # its message quotes a damaged name
)


class Unusable(ValueError):
    """A file that cannot be used; the message is one line and says why."""


class Captioner:
    """The captioner in `folder`, on as many threads as it was measured on.

    `Unusable` if one of its files is missing or damaged.
    """

    def __init__(self, folder: str | os.PathLike[str] = Path(__file__).parent) -> None:
        folder = Path(folder)
        settings = _read_json(folder / "preprocessing.json")
        words = _read_json(folder / "tokenizer.json")
        try:
            self.image_size: int = settings["image_size"]
            self.generation: dict[str, Any] = settings["generation"]
            self.words: list[str] = words["words"]
            threads: int = settings["threads"]
        except (KeyError, TypeError) as lack:
            raise Unusable(f"{folder}: must be as autocomp wrote it, but lacks {lack}") from None
        graphs = ("encoder", "decoder")
        self.run = runner({one: open_session(folder / f"{one}.onnx", threads) for one in graphs})

    def caption(self, photo: bytes | str | os.PathLike[str]) -> str:
        """The caption of a photo, a file or the bytes of one; `Unusable` if it is no image."""
        if isinstance(photo, bytes):
            images = read_image(photo, self.image_size)[None]  # (1, H, W, 3)
            (tokens,) = generate(self.run, images, **self.generation)
            return sentence(tokens, self.words)
        try:
            return self.caption(_read_bytes(photo))
        except Unusable as failure:
            raise Unusable(f"{os.fspath(photo)}: {failure}") from None


def read_image(data: bytes, size: int) -> np.ndarray:
    """The image in `data` as (size, size, 3) uint8 RGB.

    The whole picture is turned upright as its EXIF says, laid on white where it is transparent, and
    squashed to a square (bicubic), so nothing is cropped away. Raises `Unusable` with the reason
    if Pillow cannot read it, or if it would decode to more than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    return squash(decode_image(data), size)


def squash(image: Image.Image, size: int) -> np.ndarray:
    """A picture of any shape as (size, size, 3) uint8."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def decode_image(data: bytes) -> Image.Image:
    """The whole picture, upright, in RGB; `Unusable` as for `read_image`."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata, which is harmless, and of decompression bombs
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _as_rgb(image)
    except Exception as failure:  # a damaged file makes Pillow's plugins raise almost anything
        reason = " ".join(str(failure).split()) or type(failure).__name__
        if isinstance(failure, UnidentifiedImageError):
            reason = f"its {len(data)} bytes are of no known image format"
        raise Unusable(f"must be an image Pillow can read, but {reason}") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip to white
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if "transparency" in image.info or image.mode in {"LA", "PA", "La", "RGBA", "RGBa"}:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # a copy of 12 MP takes 35 ms


def open_session(path: Path, threads: int = 1) -> ort.InferenceSession:
    """The ONNX file at `path`, ready to run; `Unusable` if it cannot be loaded."""
    if not path.is_file():
        raise Unusable(f"{path}: must be an ONNX file, but there is none")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # threads that spin between calls slow everything else that shares the cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except _LOAD_ERRORS as failure:
        reason = " ".join(str(failure).split())[:200]
        raise Unusable(f"{path}: must be a whole ONNX file, but {reason}") from None


def runner(sessions: Mapping[str, ort.InferenceSession]) -> Run:
    """Runs opened graphs by name."""
    outputs = {name: [node.name for node in one.get_outputs()] for name, one in sessions.items()}

    def run(name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(outputs[name], sessions[name].run(outputs[name], inputs), strict=True))

    return run


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


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as failure:
        raise Unusable(f"must be readable, but {failure.strerror or failure}") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_bytes(path))
    except (ValueError, RecursionError) as failure:
        rule = "" if isinstance(failure, Unusable) else "must be JSON, but "
        raise Unusable(f"{path}: {rule}{failure}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Caption the photos a command line names; those that are none come last, with code 2."""
    parser = argparse.ArgumentParser(description="Caption photos, one line each.")
    parser.add_argument("photos", metavar="PHOTO", nargs="+", help="Image files.")
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    options = parser.parse_args(arguments)
    captions: list[dict[str, str]] = []
    unread: list[Unusable] = []
    try:
        captioner = Captioner()
    except Unusable as failure:
        print(failure, file=sys.stderr)
        return 2
    for photo in options.photos:
        try:
            captions.append({"photo": photo, "caption": captioner.caption(photo)})
        except Unusable as failure:
            unread.append(failure)
        else:
            if not options.json:
                print(f"{photo}: {captions[-1]['caption']}", flush=True)
    if options.json:
        print(json.dumps(captions, indent=2))
    if unread:
        print(*unread, sep="\n", file=sys.stderr)
    return 2 if unread else 0


if __name__ == "__main__":
    sys.exit(main())
