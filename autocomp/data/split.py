"""One split of a dataset: pixels, file names and what people said of each image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from autocomp.data.images import encode_png, load_files, resize
from autocomp.errors import DataError

SplitName = Literal["train", "dev", "test"]
SHOWN_SKIPS = 10
HASHED_AT_ONCE = 256
SPLITS: tuple[SplitName, ...] = get_args(SplitName)


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """The images of one split and what should be said of them, all in the same order.

    `images` is (N, H, W, 3) uint8 RGB, a read-only memory map whose pages processes share: index it
    with an array (a copy) before handing it to what wants writable memory. `names` are file names,
    `references` the captions as written, at least one an image, or the one name of its class.
    `skipped` says, one line each, what was left out and why. `files` are the original images; empty
    where there are none.
    """

    name: SplitName
    images: np.ndarray
    names: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    skipped: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def left_out(self) -> list[str]:
        """A line that counts and names what was skipped, if anything was."""
        if not self.skipped:
            return []
        more = len(self.skipped) - SHOWN_SKIPS
        shown = "; ".join(self.skipped[:SHOWN_SKIPS]) + (f"; and {more} more" if more > 0 else "")
        return [f"{self.name}: {len(self.skipped)} skipped: {shown}"]

    def resized(self, size: int) -> ImageSplit:
        """The same split with images of `size` pixels a side, made of what `jpeg` gives."""
        if self.files:
            images = self._decoded(size)
        else:
            images = np.stack([resize(image, size) for image in self.images])
        return replace(self, images=images)

    def _decoded(self, size: int) -> np.ndarray:
        stack = load_files(self.files, size)
        for index, reason in stack.unreadable.items():
            raise DataError(
                f"{self.files[index]}: must still be what it was when the split was read: {reason}"
            )
        return stack.images

    @cached_property
    def pixels_id(self) -> str:
        """A name for the pixels of all images."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        for start in range(0, len(self.images), HASHED_AT_ONCE):
            digest.update(self.images[start : start + HASHED_AT_ONCE].tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def jpeg(self, index: int) -> bytes:
        """Image `index` as it would reach a deployed model.

        The bytes of the original file; without one a PNG, which loses nothing, so
        `read_image(split.jpeg(i), size)` equals `split.images[i]` for both.
        """
        if self.files:
            return self.files[index].read_bytes()
        return encode_png(self.images[index])
