"""Photos on disk with their captions, made into a split: what every dataset of files shares."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from autocomp.data.images import load_files
from autocomp.data.split import ImageSplit, SplitName
from autocomp.errors import DataError
from autocomp.files import resolve_path

SHOWN = 3  # how many of the offending images an error names


class Photo(NamedTuple):
    """A listed image: its name, its file, its usable captions, and why others were left out."""

    name: str
    file: Path
    references: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def load_photos(
    split: SplitName,
    photos: Sequence[Photo],
    where: str,
    image_size: int,
    max_unreadable: float,
    lost: Sequence[str] = (),
) -> ImageSplit:
    """The photos that are there, can be read and have a caption, in their order.

    `lost` are images that came with a fault already, a line each. `DataError`, with counts and
    names, if there is no image or more than the fraction `max_unreadable` cannot be used.
    """
    total = len(photos) + len(lost)
    if total == 0:
        raise DataError(f"{where}: must have at least one image, but has none")
    reasons = {photo.name: reason for photo in photos if (reason := _unusable(photo))}
    skipped = [*lost, *(f"{name}: {reason}" for name, reason in reasons.items())]
    _check_share(where, skipped, total, max_unreadable)

    usable = [photo for photo in photos if photo.name not in reasons]
    stack = load_files([photo.file for photo in usable], image_size)
    skipped += [f"{usable[index].name}: {reason}" for index, reason in stack.unreadable.items()]
    _check_share(where, skipped, total, max_unreadable)

    kept = [photo for index, photo in enumerate(usable) if index not in stack.unreadable]
    skipped += [f"{photo.name}: {remark}" for photo in kept for remark in photo.remarks]
    return ImageSplit(
        name=split,
        images=stack.images,
        names=tuple(photo.name for photo in kept),
        references=tuple(photo.references for photo in kept),
        skipped=tuple(skipped),
        files=tuple(photo.file for photo in kept),
    )


def _unusable(photo: Photo) -> str | None:
    if not photo.references:
        return "; ".join(["has no caption", *photo.remarks])
    return None if is_file(photo.file) else "no such file"


def _check_share(where: str, skipped: Sequence[str], total: int, max_unreadable: float) -> None:
    if len(skipped) <= max_unreadable * total:
        return
    more = f"; and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
    raise DataError(
        f"{where}: at most {max_unreadable:.3g} of the images may be unusable (max_unreadable), "
        f"but {len(skipped)} of {total} are: {'; '.join(skipped[:SHOWN])}{more}"
    )


def given_folder(given: str, where: str, what: str) -> Path:
    """The folder that the setting `where` names; `what` says whose it must be."""
    folder = resolve_path(given, where, DataError)
    if not is_folder(folder):
        raise DataError(f"{where}: must be the folder of {what}, but there is no {folder}")
    return folder


def is_file(path: Path) -> bool:
    """Whether there is such a file; no name is too long to ask, no folder too forbidden."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; no name is too long to ask, no folder too forbidden."""
    return os.path.isdir(path)  # noqa: PTH112


def first_of(
    root: Path, names: Sequence[str], what: str, exists: Callable[[Path], bool] = is_file
) -> Path:
    """The first of these files, or folders with `is_folder`, that lies in `root`."""
    for name in names:
        if exists(root / name):
            return root / name
    raise DataError(f"{root}: must hold {what}, but there is no {' or '.join(names)}")
