"""COCO captions (Lin et al., 2014; Chen et al., 2015) from a folder in its standard layout.

`annotations/captions_train2017.json` and `captions_val2017.json`, images in `train2017/` and
`val2017/`, which may also lie in `images/`; or all that with 2014. COCO keeps the captions of its
test images to itself, so dev and test are halves of val. The SHA-256 of an image's id says which
half it is in: a copy with fewer images, or the other year, has every image in the same half.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, StrictInt

from autocomp.data.annotations import Entry, InnerPath, photos_of, read_annotations
from autocomp.data.photos import first_of, given_folder, is_file, is_folder, load_photos
from autocomp.data.split import ImageSplit, SplitName
from autocomp.decisions import Decision
from autocomp.errors import DataError

Part = Literal["train", "val"]
Year = Literal[2014, 2017]
YEARS: tuple[Year, ...] = get_args(Year)
HALVES: tuple[SplitName, SplitName] = ("dev", "test")
ANNOTATION_FOLDERS = ("annotations", "")
IMAGE_FOLDERS = ("", "images")
HINT = "COCO's captions are in captions_*.json; Karpathy's splits of them have data kind karpathy"


class CocoCaptionsSettings(Decision):
    """Where COCO lies and how its images are read.

    `root` may start with `~` and hold environment variables (`${AUTOCOMP_DATA}/coco`); a relative
    one starts from the working folder. `year` is needed where both are there. Images become squares
    of `image_size` pixels. At most the fraction `max_unreadable` of a split may be missing, damaged
    or without captions.
    """

    kind: Literal["coco_captions"] = "coco_captions"
    root: str
    year: Year | None = None
    image_size: int = Field(default=160, ge=16, le=1024)
    max_unreadable: float = Field(default=0.01, ge=0, lt=1)


class _Image(BaseModel):
    id: StrictInt
    file_name: InnerPath


class _Annotation(BaseModel):
    id: StrictInt | None = None
    image_id: StrictInt
    caption: Any = None


class _Captions(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]


def load_coco_captions(settings: CocoCaptionsSettings, split: SplitName) -> ImageSplit:
    """COCO captions in its standard layout; dev and test are the two halves of val."""
    root = given_folder(settings.root, "task.data.root", "COCO")
    year = settings.year or _year(root)
    part: Part = "train" if split == "train" else "val"
    file, captions = _read(root, part, year)
    if part == "train":
        _refuse_shared(root, captions, _read(root, "val", year)[1])

    images = first_of(root, _image_folders(part, year), "an image folder", is_folder)
    photos, lost = photos_of(file, _entries(part, captions), split, images)
    listed = {image.id for image in captions.images}
    unlisted = {one.image_id for one in captions.annotations} - listed
    lost += [
        f"image {key}: has captions but is not listed"
        for key in sorted(unlisted)
        if _split_of(part, key) == split
    ]
    where = f"{root}, {split} split"
    return load_photos(split, photos, where, settings.image_size, settings.max_unreadable, lost)


def _entries(part: Part, captions: _Captions) -> Iterator[Entry]:
    by_image: dict[int, list[tuple[int | None, Any]]] = {}
    for one in captions.annotations:
        by_image.setdefault(one.image_id, []).append((one.id, one.caption))
    for image in captions.images:
        yield Entry(image.file_name, _split_of(part, image.id), by_image.get(image.id, []))


def _split_of(part: Part, image_id: int) -> SplitName:
    if part == "train":
        return "train"
    return HALVES[hashlib.sha256(f"{image_id}".encode()).digest()[0] % 2]


def _read(root: Path, part: Part, year: Year) -> tuple[Path, _Captions]:
    file = first_of(root, _caption_files(part, year), f"the captions of {part}{year}")
    captions = read_annotations(file, _Captions, HINT)
    annotations = captions.annotations
    if annotations and not any("caption" in one.model_fields_set for one in annotations):
        raise DataError(
            f"{file}: must hold captions, but none of its {len(annotations):,} annotations "
            f"has one ({HINT})"
        )
    names: dict[int, str] = {}
    for image in captions.images:
        if names.setdefault(image.id, image.file_name) != image.file_name:
            both = f"{names[image.id]} and {image.file_name}"
            raise DataError(f"{file}: an id must name one image, but {image.id} names {both}")
    return file, captions


def _refuse_shared(root: Path, train: _Captions, val: _Captions) -> None:
    trained = {(image.id, image.file_name) for image in train.images}
    shared = [image.file_name for image in val.images if (image.id, image.file_name) in trained]
    if shared:
        raise DataError(
            f"{root}: an image must be in train or in val, but {len(shared)} are in both, "
            f"the first of them {shared[0]}"
        )


def _year(root: Path) -> Year:
    """The year whose captions are there."""
    names = {year: [*_caption_files("train", year), *_caption_files("val", year)] for year in YEARS}
    found = [year for year in YEARS if any(is_file(root / name) for name in names[year])]
    if len(found) == 1:
        return found[0]
    if found:
        rule = f"must be given, {' or '.join(map(str, found))}"
        raise DataError(f"task.data.year: {rule}, but is missing where {root} holds both")
    wanted = " or ".join(names[year][0] for year in YEARS)
    raise DataError(f"{root}: must hold COCO's captions, but there is no {wanted}")


def _caption_files(part: Part, year: Year) -> list[str]:
    return [str(Path(folder, f"captions_{part}{year}.json")) for folder in ANNOTATION_FOLDERS]


def _image_folders(part: Part, year: Year) -> list[str]:
    return [str(Path(folder, f"{part}{year}")) for folder in IMAGE_FOLDERS]
