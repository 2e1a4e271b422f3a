"""Flickr8k (Hodosh, Young and Hockenmaier, 2013) from a folder, in the two layouts it comes in.

Kaggle: `Images/` and `captions.txt`, a CSV file with the columns image and caption. Original:
`Flicker8k_Dataset/` (so spelt) and `Flickr8k.token.txt` with lines `name.jpg#0<tab>caption`. Both
need the official lists `Flickr_8k.{train,dev,test}Images.txt`. The text files may also lie in
`Flickr8k_text/`. Nothing is downloaded.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from autocomp.data.annotations import Entry, inside, photos_of, read_whole
from autocomp.data.photos import first_of, given_folder, is_file, is_folder, load_photos
from autocomp.data.split import SPLITS, ImageSplit, SplitName
from autocomp.decisions import Decision
from autocomp.errors import DataError

IMAGE_FOLDERS = ("Images", "Flicker8k_Dataset", "Flickr8k_Dataset")
CAPTION_FILES = ("captions.txt", "Flickr8k.token.txt")
TEXT_FOLDERS = ("", "Flickr8k_text")


class Flickr8kSettings(Decision):
    """Where Flickr8k lies and how its images are read.

    `root` may start with `~` and hold environment variables (`${AUTOCOMP_DATA}/flickr8k`); a
    relative one starts from the working folder. Images become squares of `image_size` pixels. At
    most the fraction `max_unreadable` of a split may be missing, damaged or without captions.
    """

    kind: Literal["flickr8k"] = "flickr8k"
    root: str
    image_size: int = Field(default=160, ge=16, le=1024)
    max_unreadable: float = Field(default=0.01, ge=0, lt=1)
    captions_file: str | None = None


def load_flickr8k(settings: Flickr8kSettings, split: SplitName) -> ImageSplit:
    """The images that the split's official list names, in its order, with their captions."""
    root = given_folder(settings.root, "task.data.root", "Flickr8k")
    images = first_of(root, IMAGE_FOLDERS, "an image folder", is_folder)
    lists = _lists(root, split)
    captions = read_captions(_captions_file(root, settings.captions_file))
    photos, lost = photos_of(root, _entries(lists, captions), split, images)
    where = f"{root}, {split} split"
    loaded = load_photos(split, photos, where, settings.image_size, settings.max_unreadable, lost)
    # no part of the split, whose share of unusable images they would raise
    return replace(loaded, skipped=(*loaded.skipped, *_strays(lists, captions, images)))


def _entries(
    lists: Mapping[SplitName, list[str]], captions: Mapping[str, tuple[str, ...]]
) -> Iterator[Entry]:
    for split, names in lists.items():
        for name in names:
            yield Entry(name, split, [(None, text) for text in captions.get(name, ())])


def _strays(
    lists: Mapping[SplitName, list[str]], captions: Mapping[str, tuple[str, ...]], images: Path
) -> list[str]:
    """A line for each image that has captions, but is in no list and not there either.

    Without all lists nobody knows; and the lists leave out some of the images that are there.
    """
    if len(lists) < len(SPLITS):
        return []
    unlisted = captions.keys() - {name for names in lists.values() for name in names}
    return [
        f"{name}: has captions but is not listed"
        for name in sorted(unlisted)
        if not is_file(images / name)
    ]


def read_captions(file: Path) -> dict[str, tuple[str, ...]]:
    """Captions by image name, from either form of the file; an empty caption is "".

    Raises `DataError` with the line number where a line has another form.
    """
    text = _read_text(file)
    first = text.split("\n", 1)[0].strip()
    if not first:
        raise DataError(f"{file}: must hold captions, but its first line is empty")
    pairs = _token_pairs(file, text) if "\t" in first else _csv_pairs(file, text)
    captions: dict[str, list[str]] = {}
    for name, caption in pairs:
        captions.setdefault(name, []).append(caption.strip())
    if not captions:
        raise DataError(f"{file}: must hold captions, but there are none")
    return {name: tuple(lines) for name, lines in captions.items()}


def _csv_pairs(file: Path, text: str) -> list[tuple[str, str]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    pairs: list[tuple[str, str]] = []
    try:
        header = [column.strip() for column in next(reader)]
        if header != ["image", "caption"]:
            raise DataError(f"{file}:1: must be 'image,caption', but got {','.join(header)!r}")
        for row in reader:
            if row and (len(row) != 2 or "\n" in row[1]):
                rule = "must be an image and a caption (in quotes if it has commas)"
                raise DataError(f"{file}:{reader.line_num}: {rule}, but got {','.join(row)[:80]!r}")
            if row:
                pairs.append((row[0].strip(), row[1]))
    except csv.Error as failure:
        raise DataError(f"{file}:{reader.line_num}: must be valid CSV, but {failure}") from None
    return pairs


def _token_pairs(file: Path, text: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        label, tab, caption = line.partition("\t")
        name, mark, _ = label.rpartition("#")
        if line.strip() and not (tab and mark):
            rule = "must be 'name.jpg#0<tab>caption'"
            raise DataError(f"{file}:{number}: {rule}, but got {line[:80]!r}")
        if line.strip():
            pairs.append((name.strip(), caption))
    return pairs


def _captions_file(root: Path, named: str | None) -> Path:
    names = CAPTION_FILES if named is None else (named,)
    return first_of(root, _text_paths(*names), "a captions file")


def _lists(root: Path, needed: SplitName) -> dict[SplitName, list[str]]:
    """What the official lists name; all but the `needed` one may be missing."""
    lists: dict[SplitName, list[str]] = {}
    for split in SPLITS:
        paths = _text_paths(f"Flickr_8k.{split}Images.txt")
        if split == needed or any(is_file(root / path) for path in paths):
            file = first_of(root, paths, f"the official list of the {split} split")
            lists[split] = _listed(file)
    return lists


def _listed(file: Path) -> list[str]:
    names: list[str] = []
    for number, line in enumerate(_read_text(file).splitlines(), start=1):
        try:
            names += [inside(line.strip())] if line.strip() else []
        except ValueError as failure:
            raise DataError(f"{file}:{number}: {failure}") from None
    return names


def _text_paths(*names: str) -> tuple[str, ...]:
    return tuple(str(Path(folder, name)) for folder in TEXT_FOLDERS for name in names)


def _read_text(file: Path) -> str:
    try:
        return io.StringIO(read_whole(file).decode(), newline=None).read()
    except UnicodeDecodeError as failure:
        raise DataError(f"{file}: must be UTF-8 text, but {failure.reason}") from None
