"""Images in a folder for each class, the layout of ImageNet: `train/<class>/...`, `val`, `test`.

Without `val/` a part of the images of another folder selects: a hash of an image's name decides
which, so it is the same part on every machine and in a copy with fewer images. The same hash orders
the images, so that the first ones, which calibrate and are shown, are of all classes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from autocomp.data.photos import Photo, first_of, given_folder, is_file, is_folder, load_photos
from autocomp.data.split import ImageSplit, SplitName
from autocomp.decisions import Decision
from autocomp.errors import DataError, nearest

Source = Literal["train", "val", "test"]
"""The folder that the images come from on which policies are selected."""


class ImageFolderSettings(Decision):
    """Where the folders lie and how their images are read.

    The images that select policies are those of `val/`, or `dev_fraction` of those of `train/` or
    `test/`, as `dev_from` says: by default `val` if there is one, else `train`. Images become
    squares of `image_size` pixels. At most the fraction `max_unreadable` of a split may be damaged
    or in no class.
    """

    kind: Literal["image_folder"] = "image_folder"
    root: str
    image_size: int = Field(default=224, ge=16, le=1024)
    dev_from: Source | None = None
    dev_fraction: float = Field(default=0.1, gt=0, lt=1)
    max_unreadable: float = Field(default=0.01, ge=0, lt=1)


def load_image_folder(settings: ImageFolderSettings, split: SplitName) -> ImageSplit:
    """Any images in a folder for each class; dev is `val/` or a part of `train/`."""
    root = given_folder(settings.root, "task.data.root", "the images")
    dev_from = settings.dev_from or ("val" if is_folder(root / "val") else "train")
    photos, lost = listed(root, split, dev_from, settings.dev_fraction)
    where = f"{root}, {split} split"
    return load_photos(split, photos, where, settings.image_size, settings.max_unreadable, lost)


def listed(
    root: Path, split: SplitName, dev_from: Source, dev_fraction: float
) -> tuple[list[Photo], list[str]]:
    """The images of a split, classes mixed, and a line for each file that is in no class.

    `DataError` for a class without images, or one of which there are no training images.
    """
    source = dev_from if split == "dev" else split
    folder = first_of(root, (source,), f"the images of the {split} split", is_folder)
    classes = _classes(first_of(root, ("train",), "the training images", is_folder))
    _check_classes(folder, classes)
    photos = [
        Photo(f"{name}/{file.relative_to(folder / name).as_posix()}", file, (name,))
        for name in classes
        for file in _files(folder / name)
    ]
    is_part = split == "dev" and source != "val"
    if source == dev_from and source != "val":
        photos = [one for one in photos if is_dev(one.name, dev_fraction) == is_part]
    loose = [] if is_part else sorted(one.name for one in folder.iterdir() if is_file(one))
    lost = [name for name in loose if not name.startswith(".")]
    photos.sort(key=lambda one: _place(one.name))
    return photos, [f"{name}: lies in the folder of no class" for name in lost]


def is_dev(name: str, fraction: float) -> bool:
    """Whether the image of this name is of the `fraction` of a folder's that select."""
    return _place(name) < fraction * 2**64


def _place(name: str) -> int:
    """A number below 2^64 that an image's name alone decides on."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big")


def _classes(train: Path) -> list[str]:
    classes = _folders(train)
    if len(classes) < 2:
        raise DataError(f"{train}: must hold a folder for each class, but holds {len(classes)}")
    for name in classes:
        if not _files(train / name):
            raise DataError(f"{train / name}: must hold images of its class, but holds none")
    return classes


def _check_classes(folder: Path, known: Sequence[str]) -> None:
    for name in _folders(folder):
        if name not in known:
            close = nearest(name, known, count=1)
            hint = f"; the nearest is {close[0]!r}" if close else ""
            raise DataError(f"{folder / name}: must be a class of train, but is none{hint}")


def _folders(folder: Path) -> list[str]:
    return sorted(
        one.name for one in folder.iterdir() if is_folder(one) and not _is_hidden(one, folder)
    )


def _files(folder: Path) -> list[Path]:
    """Every file below, in the order of their names."""
    found = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sorted(one for one in found if not _is_hidden(one, folder))


def _is_hidden(file: Path, folder: Path) -> bool:
    """What begins with a dot belongs to the system, and all that lies in it."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)
