"""CIFAR-10 (Krizhevsky, 2009): its binary version, torchvision's files, or image folders.

A record of the binary version is 3,073 bytes: the class, then red, green and blue. torchvision's
files are pickles of the same images, read without running what they name. There is no split to
select on, so dev is a part of train or of test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from autocomp.data.image_folder import is_dev, listed
from autocomp.data.images import cached_stack, resize
from autocomp.data.photos import given_folder, is_file, is_folder, load_photos
from autocomp.data.pickled import read_pickled
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
BATCHES = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}
SIDE = 32
VALUES = 3 * SIDE * SIDE


class Form(NamedTuple):
    """How the batches are stored: what their files' names end in, and `read(file, values)`."""

    suffix: str
    read: Callable[[Path, int], np.ndarray]


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
    return _from_batches(*_batches(root), split, settings)


def _from_batches(
    folder: Path, form: Form, split: SplitName, settings: Cifar10Settings
) -> ImageSplit:
    source = settings.dev_from if split == "dev" else split
    files = {name: folder / f"{name}{form.suffix}" for name in BATCHES[source]}
    entries = [
        (f"{name}/{row:05d}", record)
        for name, file in files.items()
        for row, record in enumerate(_records(file, form))
    ]
    if source == settings.dev_from:
        is_held_out = split == "dev"
        entries = [one for one in entries if is_dev(one[0], settings.dev_fraction) == is_held_out]
    digest = hashlib.sha256()
    for _, record in entries:
        digest.update(record)

    def read(index: int) -> np.ndarray:
        pixels = entries[index][1][1:].reshape(3, SIDE, SIDE).transpose(1, 2, 0)
        return resize(pixels, settings.image_size)

    key = ["cifar10", digest.hexdigest()]
    return ImageSplit(
        name=split,
        images=cached_stack(key, len(entries), settings.image_size, read).images,
        names=tuple(name for name, _ in entries),
        references=tuple((CLASSES[record[0]],) for _, record in entries),
    )


def _records(file: Path, form: Form) -> np.ndarray:
    """(N, 3073) uint8; `DataError` if the file is cut short or another one."""
    if not is_file(file):
        raise DataError(f"{file}: must be there, but is missing")
    records = form.read(file, VALUES)
    if (largest := int(records[:, 0].max())) >= len(CLASSES):
        raise DataError(f"{file}: classes must be from 0 to {len(CLASSES) - 1}, but got {largest}")
    return records


def _read_binary(file: Path, values: int) -> np.ndarray:
    """Records (N, 1 + values), a memory map."""
    size = file.stat().st_size
    if size == 0 or size % (1 + values):
        rule = f"must hold records of {1 + values:,} bytes"
        raise DataError(f"{file}: {rule}, but has {size:,} bytes in all")
    return np.memmap(file, np.uint8, mode="r").reshape(-1, 1 + values)


FORMS = {
    "cifar-10-batches-bin": Form(".bin", _read_binary),
    "cifar-10-batches-py": Form("", read_pickled),
}
"""By the name of the folder that an archive holds."""


def _batches(root: Path) -> tuple[Path, Form]:
    names = [name for batches in BATCHES.values() for name in batches]
    for inner, form in FORMS.items():
        for folder in (root / inner, root):
            if any(is_file(folder / f"{name}{form.suffix}") for name in names):
                return folder, form
    forms = ", ".join(f"{inner}/" for inner in FORMS)
    raise DataError(
        f"{root}: must hold {forms} or image folders (train/<class>/), but holds none of them"
    )
