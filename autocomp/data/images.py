"""Image files to arrays of one size, and the cache that keeps a decoded split on disk.

A cached split is a folder `images/<key>/` in the cache folder, with `images.npy` (memory-mapped
when read, so that processes share its pages) and `unreadable.json`. The key covers everything the
pixels depend on: of files all their bytes, for names, lengths and times may be those of others. A
stale entry is therefore never read, only left behind.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL
from filelock import FileLock
from PIL import Image

from autocomp.deploy import photos
from autocomp.errors import DataError
from autocomp.files import cache_dir, write_folder, write_json

LARGEST_BYTES = 2**28  # of an image file, which is read whole
THUMBNAIL_QUALITY = 82


@dataclass(frozen=True, eq=False)
class ImageStack:
    """Decoded images (K, size, size, 3) uint8, and the reason for each index not among them."""

    images: np.ndarray
    unreadable: dict[int, str]


def read_image(data: bytes, size: int) -> np.ndarray:
    """The image in `data` as (size, size, 3) uint8 RGB, just as a deployed model reads it.

    Raises `DataError` with the reason where `autocomp.deploy.photos.read_image` finds it unusable.
    """
    return photos.squash(_decode(data), size)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 as `read_image` would read it from a file that loses nothing."""
    return photos.squash(Image.fromarray(np.asarray(pixels)), size)


def thumbnail(data: bytes, longest: int) -> bytes:
    """The image in `data` as a JPEG file in its own proportions, at most `longest` pixels a side.

    Raises `DataError` as `read_image` does.
    """
    image = _decode(data)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=THUMBNAIL_QUALITY, optimize=True)
    return buffer.getvalue()


def _decode(data: bytes) -> Image.Image:
    try:
        return photos.decode_image(data)
    except photos.Unusable as failure:
        raise DataError(str(failure)) from None


def encode_png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def load_files(files: Sequence[Path], size: int) -> ImageStack:
    """Decode image files, or read them back if the same bytes have been decoded before.

    A file that cannot be read is tried again each time; one that is no image never is. Raises
    `DataError` if a file changes meanwhile.
    """
    digests: dict[int, str] = {}
    unreadable: dict[int, str] = {}
    for index, file in enumerate(files):
        try:
            digests[index] = _digest(_read_file(file))
        except photos.Unusable as failure:
            unreadable[index] = str(failure)
    places = list(digests)

    def read(row: int) -> np.ndarray:
        return photos.read_image(_read_again(files[places[row]], digests[places[row]]), size)

    stack = cached_stack(list(digests.values()), len(places), size, read)
    unreadable |= {places[row]: reason for row, reason in stack.unreadable.items()}
    return ImageStack(stack.images, dict(sorted(unreadable.items())))


def _read_file(file: Path) -> bytes:
    try:
        size = file.stat().st_size
    except OSError as failure:
        raise photos.Unusable(f"must be readable, but {failure.strerror or failure}") from None
    if size > LARGEST_BYTES:
        raise photos.Unusable(f"must have at most {LARGEST_BYTES:,} bytes, but has {size:,}")
    return photos.read_bytes(file)


def _read_again(file: Path, digest: str) -> bytes:
    try:
        data = _read_file(file)
    except photos.Unusable as failure:
        raise DataError(f"{file}: {failure}") from None
    if _digest(data) != digest:
        raise DataError(f"{file}: must stay as it is while it is read, but was changed")
    return data


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def cached_stack(key: Any, count: int, size: int, read: Callable[[int], np.ndarray]) -> ImageStack:
    """`read(0)` ... `read(count - 1)` stacked, from the cache if `key` has been read before.

    `read` gives (size, size, 3) uint8 or raises `Unusable` with a reason that will always hold, for
    it is kept. `key` is anything JSON can write; Pillow's version is added to it. Processes that
    want the same entry at once wait for the first of them.
    """
    text = json.dumps([key, count, size, PIL.__version__])
    try:
        folder = cache_dir() / "images" / hashlib.sha256(text.encode()).hexdigest()[:20]
        return _open(folder) or _build(folder, count, size, read)
    except OSError as failure:
        raise DataError(
            f"cache: must be a folder that decoded images can be written to, but {failure}; "
            "the environment variable AUTOCOMP_CACHE names another"
        ) from None


def _build(folder: Path, count: int, size: int, read: Callable[[int], np.ndarray]) -> ImageStack:
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        stack = _open(folder)
        if stack is None:
            write_folder(folder, lambda into: _fill(into, count, size, read))
            stack = _open(folder)
    assert stack is not None, folder
    return stack


def _fill(folder: Path, count: int, size: int, read: Callable[[int], np.ndarray]) -> None:
    unreadable: dict[int, str] = {}
    with (folder / "images.npy").open("wb") as file:
        _write_header(file, count, size)
        for index in range(count):
            try:
                file.write(read(index).tobytes())
            except photos.Unusable as failure:
                unreadable[index] = str(failure)
        # numpy leaves room in the header for the first axis, so a smaller count fits in place
        file.seek(0)
        _write_header(file, count - len(unreadable), size)
    write_json(folder / "unreadable.json", unreadable)


def _write_header(file: BinaryIO, count: int, size: int) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, header)


def _open(folder: Path) -> ImageStack | None:
    """The entry, or None if there is none or it was cut short (by a full disk or a power cut)."""
    try:
        reasons = json.loads((folder / "unreadable.json").read_text(encoding="utf-8"))
        images = np.load(folder / "images.npy", mmap_mode="r")
        return ImageStack(images, {int(index): str(reason) for index, reason in reasons.items()})
    except (OSError, ValueError, AttributeError):
        return None
