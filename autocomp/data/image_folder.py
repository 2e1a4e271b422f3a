"""Images in a folder for each class, the layout of ImageNet: `train/<class>/...`, `val`, `test`.

Without `val/` a part of the training images selects: a hash of an image's name decides which, so it
is the same part on every machine and in a copy with fewer images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from autocomp.data.photos import Photo, first_of, given_folder, is_file, is_folder, load_photos
from autocomp.data.split import ImageSplit, SplitName
from autocomp.decisions import Decision
from autocomp.errors import DataError, nearest

TRAIN, DEV, TEST = "train", ("val", "dev"), "test"
DEV_FRACTION = 0.1
"""Of the training images, where nothing else is said of what selects."""


class ImageFolderSettings(Decision):
    """Where the folders lie and how their images are read.

    `dev_fraction` of the training images select policies; without it `val/` does, or a tenth of the
    training images where there is none. Images become squares of `image_size` pixels. At most the
    fraction `max_unreadable` of a split may be damaged or in no class.
    """

    kind: Literal["image_folder"] = "image_folder"
    root: str
    image_size: int = Field(default=224, ge=16, le=1024)
    dev_fraction: float | None = Field(default=None, gt=0, lt=1)
    max_unreadable: float = Field(default=0.01, ge=0, lt=1)


def load_image_folder(settings: ImageFolderSettings, split: SplitName) -> ImageSplit:
    """Any images in a folder for each class; dev is `val/` or a part of `train/`."""
    root = given_folder(settings.root, "task.data.root", "the images")
    fraction = settings.dev_fraction
    if fraction is None and not any(is_folder(root / name) for name in DEV):
        fraction = DEV_FRACTION
    photos, lost = listed(root, split, fraction)
    where = f"{root}, {split} split"
    return load_photos(split, photos, where, settings.image_size, settings.max_unreadable, lost)


def listed(
    root: Path, split: SplitName, dev_fraction: float | None
) -> tuple[list[Photo], list[str]]:
    """The images of a split, ordered by name, and a line for each file that is in no class.

    With `dev_fraction` train and dev are both made of `train/`. `DataError` for a class without
    images, or one of which there are no training images.
    """
    train = first_of(root, (TRAIN,), "the training images", is_folder)
    classes = _classes(train)
    is_held_out = split != "test" and dev_fraction is not None
    if split == "train" or is_held_out:
        folder = train
    else:
        names = DEV if split == "dev" else (TEST,)
        folder = first_of(root, names, f"the images of the {split} split", is_folder)
        _check_classes(folder, classes)
    photos = [
        Photo(name, file, (file.relative_to(folder).parts[0],))
        for file in _files(folder)
        if "/" in (name := file.relative_to(folder).as_posix())
    ]
    if dev_fraction is not None and split != "test":
        photos = [one for one in photos if is_dev(one.name, dev_fraction) == (split == "dev")]
    loose = [one.name for one in folder.iterdir() if is_file(one) and not _is_hidden(one, folder)]
    return photos, [f"{name}: lies in the folder of no class" for name in sorted(loose)]


def is_dev(name: str, fraction: float) -> bool:
    """Whether the image of this name is of the `fraction` of the training images that select."""
    number = int.from_bytes(
        hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8], "big"
    )
    return number < fraction * 2**64


def _classes(train: Path) -> list[str]:
    classes = sorted(one.name for one in train.iterdir() if is_folder(one))
    if len(classes) < 2:
        raise DataError(f"{train}: must hold a folder for each class, but holds {len(classes)}")
    for name in classes:
        if not _files(train / name):
            raise DataError(f"{train / name}: must hold images of its class, but holds none")
    return classes


def _check_classes(folder: Path, known: Sequence[str]) -> None:
    for name in sorted(one.name for one in folder.iterdir() if is_folder(one)):
        if name not in known:
            close = nearest(name, known, count=1)
            hint = f"; the nearest is {close[0]!r}" if close else ""
            raise DataError(f"{folder / name}: must be a class of {TRAIN}, but is none{hint}")


def _files(folder: Path) -> list[Path]:
    """Every file below, in the order of their names; what is hidden belongs to the system."""
    found = [one for one in folder.rglob("*") if is_file(one) and not _is_hidden(one, folder)]
    return sorted(found, key=lambda one: one.relative_to(folder).as_posix())


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)
