"""Flickr8k, Flickr30k and COCO in the splits of Karpathy and Fei-Fei (2015), 1412.2306.

One JSON file (`dataset_flickr8k.json`, `dataset_flickr30k.json`, `dataset_coco.json`) lists every
image with its split and its sentences. Most published captioning figures are on these splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, StrictInt

from autocomp.data.annotations import Entry, InnerPath, photos_of, read_annotations
from autocomp.data.photos import given_folder, is_file, load_photos
from autocomp.data.split import ImageSplit, SplitName
from autocomp.decisions import Decision
from autocomp.errors import DataError, nearest
from autocomp.files import resolve_path

HINT = "COCO's own captions_*.json has data kind coco_captions"
SPLIT_OF: dict[str, SplitName] = {
    "train": "train",
    "restval": "train",
    "val": "dev",
    "test": "test",
}


class KarpathySettings(Decision):
    """Where a Karpathy split file and its images lie, and how those are read.

    Both paths may start with `~` and hold environment variables; relative ones start from the
    working folder. `restval`, the part of COCO's validation images that is in no other split,
    belongs to train unless it is set to false. Images become squares of `image_size` pixels. At
    most the fraction `max_unreadable` of a split may be missing, damaged or without captions.
    """

    kind: Literal["karpathy"] = "karpathy"
    annotations: str
    images: str
    restval: bool = True
    image_size: int = Field(default=160, ge=16, le=1024)
    max_unreadable: float = Field(default=0.01, ge=0, lt=1)


class _Sentence(BaseModel):
    sentid: StrictInt | None = None
    raw: Any = None


class _Image(BaseModel):
    filepath: InnerPath = ""
    filename: InnerPath
    split: Literal["train", "restval", "val", "test"]
    sentences: list[_Sentence]


class _Dataset(BaseModel):
    images: list[_Image]


def load_karpathy(settings: KarpathySettings, split: SplitName) -> ImageSplit:
    """Flickr8k, Flickr30k or COCO in Karpathy's splits, one JSON file for all of them."""
    file = _annotations_file(settings.annotations)
    images = given_folder(settings.images, "task.data.images", "the images")
    dataset = read_annotations(file, _Dataset, HINT)
    photos, lost = photos_of(file, _entries(dataset, settings.restval), split, images)
    where = f"{file}, {split} split"
    return load_photos(split, photos, where, settings.image_size, settings.max_unreadable, lost)


def _entries(dataset: _Dataset, restval: bool) -> Iterator[Entry]:
    for image in dataset.images:
        left_out = image.split == "restval" and not restval
        yield Entry(
            name=str(Path(image.filepath, image.filename)),
            split=None if left_out else SPLIT_OF[image.split],
            captions=[(one.sentid, one.raw) for one in image.sentences],
        )


def _annotations_file(given: str) -> Path:
    file = resolve_path(given, "task.data.annotations", DataError)
    if is_file(file):
        return file
    close = nearest(file.name, [one.name for one in file.parent.glob("*.json")], count=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise DataError(
        f"task.data.annotations: must be a JSON file with Karpathy's splits, "
        f"but there is no {file}{hint}"
    )
