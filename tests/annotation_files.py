"""Tiny datasets whose captions are in JSON, of either kind, for the tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flickr8k_files import jpeg_bytes

from autocomp.data.coco_captions import CocoCaptionsSettings
from autocomp.data.karpathy import KarpathySettings

Captions = Mapping[str, list[Any]]
"""Image name -> what stands for its captions."""

TRAIN: Captions = {name: [f"a dog of {name}", "a dog"] for name in ("a.jpg", "b.jpg", "c.jpg")}
VAL_IDS = range(1001, 1013)
VAL: Captions = {f"{key}.jpg": [f"a cat of {key}", "a cat"] for key in VAL_IDS}


class Source(NamedTuple):
    """A dataset on disk: the file with the train captions, their images, and its settings."""

    file: Path
    images: Path
    settings: CocoCaptionsSettings | KarpathySettings

    def edit(self, change: Callable[[Any], Any]) -> None:
        content = json.loads(self.file.read_text())
        change(content)
        self.file.write_text(json.dumps(content))

    def allowing(self, share: float) -> CocoCaptionsSettings | KarpathySettings:
        return self.settings.model_copy(update={"max_unreadable": share})


def write_images(folder: Path, captions: Captions) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(captions):
        (folder / name).write_bytes(jpeg_bytes(seed))


def coco_json(captions: Captions, first_id: int) -> dict[str, Any]:
    listed = list(enumerate(captions.items(), start=first_id))
    return {
        "info": {"description": "tiny"},
        "images": [{"id": key, "file_name": name, "height": 20} for key, (name, _) in listed],
        "annotations": [
            {"id": 100 * key + number, "image_id": key, "caption": caption}
            for key, (_, lines) in listed
            for number, caption in enumerate(lines)
        ],
    }


def write_coco(
    root: Path,
    train: Captions = TRAIN,
    year: int = 2017,
    texts: str = "annotations",
    nest: str = "",
) -> Source:
    (root / texts).mkdir(parents=True, exist_ok=True)
    for part, captions, first_id in (("train", train, 1), ("val", VAL, VAL_IDS[0])):
        write_images(root / nest / f"{part}{year}", captions)
        file = root / texts / f"captions_{part}{year}.json"
        file.write_text(json.dumps(coco_json(captions, first_id)))
    return Source(
        root / texts / f"captions_train{year}.json",
        root / nest / f"train{year}",
        CocoCaptionsSettings(root=str(root), image_size=16),
    )


def karpathy_image(name: str, split: str, captions: list[Any], number: int) -> dict[str, Any]:
    sentences = [
        {"raw": caption, "sentid": 10 * number + index, "tokens": ["a"], "imgid": number}
        for index, caption in enumerate(captions)
    ]
    return {"filename": name, "split": split, "sentences": sentences, "imgid": number}


def write_karpathy(root: Path, train: Captions = TRAIN) -> Source:
    splits = [*(["train"] * len(train)), *(["val", "test"] * (len(VAL) // 2))]
    listed = {**train, **VAL}
    content = {
        "dataset": "tiny",
        "images": [
            karpathy_image(name, split, captions, number)
            for number, (split, (name, captions)) in enumerate(
                zip(splits, listed.items(), strict=True)
            )
        ],
    }
    write_images(root / "images", listed)
    file = root / "dataset_tiny.json"
    file.write_text(json.dumps(content))
    settings = KarpathySettings(annotations=str(file), images=str(root / "images"), image_size=16)
    return Source(file, root / "images", settings)


WRITERS: dict[str, Callable[..., Source]] = {
    "coco_captions": write_coco,
    "karpathy": write_karpathy,
}
