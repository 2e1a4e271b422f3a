"""Files that list images with their captions: read, checked, and brought into one form.

Such a file comes from anywhere, so nothing in it is believed: what is not as it should be is
refused with its place, or left out and named where the rest still makes sense without it.
"""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from autocomp.data.photos import Photo
from autocomp.data.split import SplitName
from autocomp.data.tokenizer import WORD
from autocomp.errors import DataError

LARGEST_BYTES = 10**9  # seven times dataset_coco.json; more would fill the memory
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Annotations = TypeVar("Annotations", bound=BaseModel)


def inside(text: str) -> str:
    """The path without its detours; `ValueError` if it can leave the folder it starts in."""
    path = PureWindowsPath(text)  # which takes either slash for one
    if path.anchor or ".." in path.parts or any(ord(letter) < 32 for letter in text):
        raise ValueError(f"must be a path inside the image folder, but got {reprlib.repr(text)}")
    return str(PurePosixPath(text))


InnerPath = Annotated[str, Field(max_length=1000), AfterValidator(inside)]
"""Where an image lies in the image folder."""


class Entry(NamedTuple):
    """A listed image; the split is None where no split is to have it.

    `captions` are pairs of an id, None where the file gives none, and what stands for the text.
    """

    name: str
    split: SplitName | None
    captions: Sequence[tuple[int | None, Any]]


def read_whole(file: Path) -> bytes:
    """The file without its byte order mark; `DataError` if it is too large or cannot be read."""
    try:
        size = file.stat().st_size
        if size > LARGEST_BYTES:
            raise DataError(f"{file}: must have at most {LARGEST_BYTES:,} bytes, but has {size:,}")
        return file.read_bytes().removeprefix(BYTE_ORDER_MARK)
    except OSError as failure:
        reason = failure.strerror or failure
        raise DataError(f"{file}: must be a file that can be read, but {reason}") from None


def read_annotations(file: Path, form: type[Annotations], hint: str) -> Annotations:
    """The JSON file as a `form`, which names what is needed of it; the rest is passed over.

    Raises `DataError` with the first place that is not as it should be; `hint` says what to do with
    a file of another kind.
    """
    try:
        return form.model_validate_json(read_whole(file))
    except ValidationError as failure:
        raise DataError(f"{file}: {_problem(failure, hint)}") from None


def _problem(failure: ValidationError, hint: str) -> str:
    """The first problem on one short line; a file of another kind has one at every entry."""
    first = failure.errors(include_url=False)[0]
    kind, message = first["type"], first["msg"]
    if kind == "json_invalid":
        return f"must be valid JSON, but {first['ctx']['error']}"
    if kind == "value_error":
        rule = message.removeprefix("Value error, ")
    elif kind == "missing":
        rule = "must be given, but is missing"
    else:
        must = re.sub(r"^\w+ should", "must", message)
        rule = f"{must}, but got {reprlib.repr(first['input'])}"
    others = f"; and {more} more" if (more := failure.error_count() - 1) else ""
    advice = f" ({hint})" if kind in ("missing", "model_type") else ""
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {rule}{others}{advice}".removeprefix(": ")


def photos_of(
    where: Path, entries: Iterable[Entry], split: SplitName, images: Path
) -> tuple[list[Photo], list[str]]:
    """The photos of one split in the order of the entries, and a line for each listed again.

    Raises `DataError` if an image is in two splits; `where` is what lists it.
    """
    photos: dict[str, Photo] = {}
    again: list[str] = []
    splits: dict[str, SplitName | None] = {}
    for name, own, captions in entries:
        if splits.setdefault(name, own) != own:
            both = " and ".join(str(one or "none") for one in (splits[name], own))
            raise DataError(f"{where}: an image must be in one split, but {name} is in {both}")
        if own == split and name in photos:
            again.append(f"{name}: is listed again")
        elif own == split:
            photos[name] = Photo(name, images / name, *_usable(captions))
    return list(photos.values()), again


def _usable(captions: Iterable[tuple[int | None, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The captions that say something, on one line each, and what was wrong with the others.

    Two people may write the same, and metrics count both; only what has the id of another is left
    out as a repetition.
    """
    usable: list[str] = []
    faults: Counter[str] = Counter()
    seen: set[int] = set()
    for key, text in captions:
        if not isinstance(text, str):
            faults["not text"] += 1
        elif not WORD.search(text):
            faults["without a word"] += 1
        elif key in seen:
            faults["listed again"] += 1
        else:
            usable.append(" ".join(text.split()))
        if key is not None:
            seen.add(key)
    remarks = [
        f"{count} caption{' is' if count == 1 else 's are'} {fault}"
        for fault, count in faults.items()
    ]
    return tuple(usable), tuple(remarks)
