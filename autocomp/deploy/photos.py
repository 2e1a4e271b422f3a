"""Reads photos and opens graphs: what every program that runs a checkpoint without autocomp shares.

A module of autocomp, which measures models with it; `autocomp.deploy.program` writes it into each
program as it is. So it imports nothing else of autocomp.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it is read once, when this is imported:
import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from PIL import Image, ImageOps, UnidentifiedImageError

Photo = bytes | str | os.PathLike[str]
"""The bytes of an image file, or its path."""
Run = Callable[..., dict[str, np.ndarray]]
"""`run(graph, **inputs)`: the outputs of one graph, by name."""

OLDEST = "1.23"
"""The first onnxruntime that has all kernels which models may hold."""
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
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,
            # it rounds weights of fp32 to 8 bits where activations on both sides are rounded
            disabled_optimizers=["WeightBiasQuantization"],
        )
    except _LOAD_ERRORS as failure:
        reason = " ".join(str(failure).split())[:200]
        raise Unusable(
            f"{path}: must be a whole ONNX file, read by onnxruntime {OLDEST} or later (this is "
            f"{ort.__version__}), but {reason}"
        ) from None


def runner(sessions: Mapping[str, ort.InferenceSession]) -> Run:
    """Runs opened graphs by name."""
    outputs = {name: [node.name for node in one.get_outputs()] for name, one in sessions.items()}

    def run(name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(outputs[name], sessions[name].run(outputs[name], inputs), strict=True))

    return run


def read_photo(photo: Photo, size: int) -> np.ndarray:
    """One photo as a batch (1, size, size, 3); `Unusable` names the file."""
    if isinstance(photo, bytes):
        return read_image(photo, size)[None]
    try:
        return read_image(read_bytes(photo), size)[None]
    except Unusable as failure:
        raise Unusable(f"{os.fspath(photo)}: {failure}") from None


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as failure:
        raise Unusable(f"must be readable, but {failure.strerror or failure}") from None


def read_json(path: Path) -> dict[str, Any]:
    """What the object in a file holds; `Unusable` if it is another thing."""
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as failure:
        rule = "" if isinstance(failure, Unusable) else "must be JSON, but "
        raise Unusable(f"{path}: {rule}{failure}") from None
    if not isinstance(content, dict):
        raise Unusable(f"{path}: must be as autocomp wrote it, but lacks the braces of an object")
    return content


def main(
    said: str,
    open_model: Callable[[], Callable[[Photo], tuple[str, Any]]],
    arguments: Sequence[str] | None = None,
) -> int:
    """Answer for the photos a command line names; those that are none come last, with code 2.

    `said` is what the program does to photos. `open_model` gives what answers for one: its line,
    and what `--json` prints.
    """
    parser = argparse.ArgumentParser(description=f"{said} photos, one line each.")
    parser.add_argument("photos", metavar="PHOTO", nargs="+", help="Image files.")
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    options = parser.parse_args(arguments)
    answers: list[Any] = []
    unread: list[Unusable] = []
    try:
        answer = open_model()
    except Unusable as failure:
        print(failure, file=sys.stderr)
        return 2
    for photo in options.photos:
        try:
            line, told = answer(photo)
        except Unusable as failure:
            unread.append(failure)
            continue
        answers.append({"photo": photo, **told})
        if not options.json:
            print(f"{photo}: {line}", flush=True)
    if options.json:
        print(json.dumps(answers, indent=2))
    if unread:
        print(*unread, sep="\n", file=sys.stderr)
    return 2 if unread else 0
