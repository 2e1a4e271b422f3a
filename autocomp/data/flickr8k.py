"""Flickr8k (Hodosh, Young and Hockenmaier, 2013) from a folder, in the two layouts it comes in.

Kaggle: `Images/` and `captions.txt`, a CSV file with the columns image and caption. Original:
`Flicker8k_Dataset/` (so spelt) and `Flickr8k.token.txt` with lines `name.jpg#0<tab>caption`. Both
need the official lists `Flickr_8k.{train,dev,test}Images.txt`. The text files may also lie in
`Flickr8k_text/`. Nothing is downloaded.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from autocomp.data.images import check_share, load_files
from autocomp.data.split import CaptionSplit, SplitName
from autocomp.decisions import Decision
from autocomp.errors import DataError
from autocomp.files import resolve_path

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


def load_flickr8k(settings: Flickr8kSettings, split: SplitName) -> CaptionSplit:
    """The images that the split's official list names, in its order, with their captions."""
    root = _root(settings.root)
    images = _first(root, IMAGE_FOLDERS, "an image folder", Path.is_dir)
    listed = _listed(root, split)
    captions = read_captions(_captions_file(root, settings.captions_file))
    references = {name: tuple(filter(None, captions.get(name, ()))) for name in listed}

    skipped = [
        f"{name}: {'no such file' if references[name] else 'has no caption'}"
        for name in listed
        if not references[name] or not (images / name).is_file()
    ]
    usable = [name for name in listed if references[name] and (images / name).is_file()]
    where = f"{root}, {split} split"
    check_share(where, skipped, len(listed), settings.max_unreadable)
    stack = load_files([images / name for name in usable], settings.image_size)
    skipped += [f"{usable[index]}: {reason}" for index, reason in stack.unreadable.items()]
    check_share(where, skipped, len(listed), settings.max_unreadable)

    names = tuple(name for index, name in enumerate(usable) if index not in stack.unreadable)
    skipped += [f"{name}: one caption is empty" for name in names if "" in captions[name]]
    return CaptionSplit(
        name=split,
        images=stack.images,
        names=names,
        references=tuple(references[name] for name in names),
        skipped=tuple(skipped),
        files=tuple(images / name for name in names),
    )


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


def _root(given: str) -> Path:
    root = resolve_path(given, "task.data.root", DataError)
    if not root.is_dir():
        raise DataError(f"task.data.root: must be the folder of Flickr8k, but there is no {root}")
    return root


def _captions_file(root: Path, named: str | None) -> Path:
    names = CAPTION_FILES if named is None else (named,)
    return _first(root, _text_paths(*names), "a captions file", Path.is_file)


def _listed(root: Path, split: SplitName) -> list[str]:
    paths = _text_paths(f"Flickr_8k.{split}Images.txt")
    file = _first(root, paths, f"the official list of the {split} split", Path.is_file)
    names = [line.strip() for line in _read_text(file).splitlines() if line.strip()]
    if not names:
        raise DataError(f"{file}: must name at least one image, but is empty")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{file}: must name every image once, but names {twice!r} again")
    return names


def _text_paths(*names: str) -> tuple[str, ...]:
    return tuple(str(Path(folder, name)) for folder in TEXT_FOLDERS for name in names)


def _first(root: Path, names: tuple[str, ...], what: str, exists: Callable[[Path], bool]) -> Path:
    for name in names:
        if exists(root / name):
            return root / name
    raise DataError(f"{root}: must hold {what}, but there is no {' or '.join(names)}")


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as failure:
        raise DataError(f"{file}: must be UTF-8 text, but {failure.reason}") from None
