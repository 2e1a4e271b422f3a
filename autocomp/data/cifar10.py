"""CIFAR-10 (Krizhevsky, 2009) in its binary version, or as image folders.

The version that torchvision downloads is pickle, which can run code when it is read: it is refused.
`cifar-10-binary.tar.gz` has the same images, 3,073 bytes each: the class, then red, green and blue.
Neither has a split to select on, so dev is a part of train or of test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from autocomp.data.image_folder import is_dev, listed
from autocomp.data.images import cached_stack, resize
from autocomp.data.photos import given_folder, is_file, is_folder, load_photos
from autocomp.data.split import ImageSplit, SplitName
from autocomp.decisions import Decision
from autocomp.errors import DataError

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
BINARY, PICKLED = "cifar-10-batches-bin", "cifar-10-batches-py"
FILES = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
SIDE = 32
RECORD_BYTES = 1 + 3 * SIDE * SIDE


class Cifar10Settings(Decision):
    """Where CIFAR-10 lies; `dev_fraction` of its images of `dev_from` select policies.

    Weights that were trained on all of train know that part: there dev must come from test.
    """

    kind: Literal["cifar10"] = "cifar10"
    root: str
    image_size: int = Field(default=SIDE, ge=16, le=1024)
    dev_from: Literal["train", "test"] = "train"
    dev_fraction: float = Field(default=0.1, gt=0, lt=1)
    max_unreadable: float = Field(default=0.01, ge=0, lt=1)


def load_cifar10(settings: Cifar10Settings, split: SplitName) -> ImageSplit:
    """CIFAR-10 from its binary files or image folders; dev is a part of train or test."""
    root = given_folder(settings.root, "task.data.root", "CIFAR-10")
    if is_folder(root / "train"):
        photos, lost = listed(root, split, settings.dev_from, settings.dev_fraction)
        found = {photo.references[0] for photo in photos}
        if not found <= set(CLASSES):
            other = min(found - set(CLASSES))
            raise DataError(f"{root}: must hold CIFAR-10's ten classes, but got {other!r}")
        where = f"{root}, {split} split"
        return load_photos(split, photos, where, settings.image_size, settings.max_unreadable, lost)
    return _from_binary(_binary_folder(root), split, settings)


def _from_binary(folder: Path, split: SplitName, settings: Cifar10Settings) -> ImageSplit:
    source = settings.dev_from if split == "dev" else split
    files = [folder / name for name in FILES[source]]
    entries = [
        (f"{file.stem}/{row:05d}", record)
        for file in files
        for row, record in enumerate(_records(file))
    ]
    if source == settings.dev_from:
        is_held_out = split == "dev"
        entries = [one for one in entries if is_dev(one[0], settings.dev_fraction) == is_held_out]
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]

    def read(index: int) -> np.ndarray:
        pixels = entries[index][1][1:].reshape(3, SIDE, SIDE).transpose(1, 2, 0)
        return resize(pixels, settings.image_size)

    key = ["cifar10", stats, split, settings.dev_from, settings.dev_fraction]
    return ImageSplit(
        name=split,
        images=cached_stack(key, len(entries), settings.image_size, read).images,
        names=tuple(name for name, _ in entries),
        references=tuple((CLASSES[record[0]],) for _, record in entries),
    )


def _records(file: Path) -> np.ndarray:
    """(N, 3073) uint8, not yet read; `DataError` if the file is cut short or another one."""
    if not is_file(file):
        raise DataError(f"{file}: must be there, but is missing")
    size = file.stat().st_size
    if size == 0 or size % RECORD_BYTES:
        rule = f"must hold records of {RECORD_BYTES:,} bytes"
        raise DataError(f"{file}: {rule}, but has {size:,} bytes in all")
    records = np.memmap(file, np.uint8, mode="r").reshape(-1, RECORD_BYTES)
    if (largest := int(records[:, 0].max())) >= len(CLASSES):
        raise DataError(f"{file}: classes must be from 0 to {len(CLASSES) - 1}, but got {largest}")
    return records


def _binary_folder(root: Path) -> Path:
    for folder in (root / BINARY, root):
        if any(is_file(folder / name) for names in FILES.values() for name in names):
            return folder
    found = "holds neither"
    if is_folder(root / PICKLED) or is_file(root / "data_batch_1"):
        found = "holds pickle files, which can run code when they are read"
    raise DataError(
        f"{root}: must hold CIFAR-10's binary version ({BINARY}/) or image folders "
        f"(train/<class>/), but {found}"
    )
