from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import TRAIN, VAL, Source, karpathy_image, write_images, write_karpathy

from autocomp.data.captions import load_split
from autocomp.data.flickr8k import Flickr8kSettings, read_captions
from autocomp.data.karpathy import KarpathySettings
from autocomp.errors import DataError


@pytest.fixture
def karpathy(tmp_path: Path) -> Source:
    return write_karpathy(tmp_path / "karpathy")


def test_val_is_dev(karpathy: Source) -> None:
    assert load_split(karpathy.settings, "dev").names == tuple(VAL)[::2]
    assert load_split(karpathy.settings, "test").names == tuple(VAL)[1::2]


@pytest.mark.parametrize("restval", [True, False])
def test_restval_is_train_unless_left_out(karpathy: Source, restval: bool) -> None:
    karpathy.edit(lambda content: content["images"][1].update(split="restval"))
    settings = karpathy.settings.model_copy(update={"restval": restval})
    names = load_split(settings, "train").names
    assert names == (("a.jpg", "b.jpg", "c.jpg") if restval else ("a.jpg", "c.jpg"))


def test_coco_images_lie_in_the_folder_of_their_part(karpathy: Source) -> None:
    def move(content: Any) -> None:
        for image in content["images"]:
            image["filepath"] = "train2014" if image["filename"] in TRAIN else "val2014"

    karpathy.edit(move)
    for part, captions in (("train2014", TRAIN), ("val2014", VAL)):
        write_images(karpathy.images / part, captions)
    data = load_split(karpathy.settings, "train")
    assert data.names == tuple(f"train2014/{name}" for name in TRAIN)
    assert data.files[0] == karpathy.images / "train2014" / "a.jpg"
    assert load_split(karpathy.settings, "dev").names == tuple(f"val2014/{n}" for n in VAL)[::2]


@pytest.mark.parametrize("path", ["..", "/etc", "a/../../b", "C:/x"])
def test_a_filepath_out_of_the_image_folder_is_refused(karpathy: Source, path: str) -> None:
    karpathy.edit(lambda content: content["images"][2].update(filepath=path))
    with pytest.raises(DataError, match=r"images\.2\.filepath: must be a path inside the image"):
        load_split(karpathy.settings, "train")


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_image_in_two_splits_is_refused(karpathy: Source, split: str) -> None:
    again = karpathy_image("./a.jpg", split, ["one"], 99)
    karpathy.edit(lambda content: content["images"].append(again))
    with pytest.raises(DataError, match=r"must be in one split, but a\.jpg is in train and "):
        load_split(karpathy.settings, "train")


def test_an_unknown_split_is_refused(karpathy: Source) -> None:
    karpathy.edit(lambda content: content["images"][4].update(split="dev"))
    with pytest.raises(
        DataError,
        match=r"images\.4\.split: must be 'train', 'restval', 'val' or 'test', but got 'dev'",
    ):
        load_split(karpathy.settings, "train")


def test_a_misspelt_file_is_told_the_nearest(karpathy: Source) -> None:
    given = str(karpathy.file.with_name("dataset_tiny8k.json"))
    settings = karpathy.settings.model_copy(update={"annotations": given})
    with pytest.raises(DataError, match=r"annotations: .*; did you mean 'dataset_tiny\.json'\?"):
        load_split(settings, "train")


def test_missing_images_are_named(karpathy: Source) -> None:
    shutil.rmtree(karpathy.images)
    with pytest.raises(DataError, match=r"task\.data\.images: must be the folder of the images"):
        load_split(karpathy.settings, "train")


def test_flickr8k_in_karpathys_form_is_flickr8k(real_flickr8k: Path, tmp_path: Path) -> None:
    names = (real_flickr8k / "Flickr_8k.devImages.txt").read_text().split()[:40]
    (tmp_path / "Flickr_8k.devImages.txt").write_text("\n".join(names))
    for one in ("Images", "captions.txt"):
        (tmp_path / one).symlink_to(real_flickr8k / one)
    captions = read_captions(tmp_path / "captions.txt")
    images = [karpathy_image(one, "val", list(captions[one]), i) for i, one in enumerate(names)]
    file = tmp_path / "dataset_flickr8k.json"
    file.write_text(json.dumps({"dataset": "flickr8k", "images": images}))

    both = [
        load_split(Flickr8kSettings(root=str(tmp_path)), "dev"),
        load_split(KarpathySettings(annotations=str(file), images=str(tmp_path / "Images")), "dev"),
    ]
    assert both[0].names == both[1].names == tuple(names)
    assert both[0].references == both[1].references
    assert np.array_equal(both[0].images, both[1].images)
