from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from autocomp.data.captions import DATASETS, SPLITS, DataSettings, load_split
from autocomp.data.images import read_image
from autocomp.data.scenes import ScenesSettings
from autocomp.decisions import Decision, validate
from autocomp.errors import DataError, SpaceError

SMALL = ScenesSettings(train=6, dev=3, test=2, image_size=32)


class Holder(Decision):
    data: DataSettings


def test_settings_are_chosen_by_kind() -> None:
    for kind, dataset in DATASETS.items():
        places = {
            name: "x" for name, one in dataset.settings.model_fields.items() if one.is_required()
        }
        held = validate(Holder, {"data": {"kind": kind, **places}}, "task", SpaceError)
        assert type(held.data) is dataset.settings
        assert Holder.model_validate(held.model_dump()) == held


def test_the_schema_lists_every_kind() -> None:
    choice = Holder.model_json_schema()["properties"]["data"]
    assert set(choice["discriminator"]["mapping"]) == set(DATASETS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"kind": "flickr"},
            "task.data.kind: must be one of coco_captions, flickr8k, karpathy, scenes, "
            "but got 'flickr'; did you mean 'flickr8k'?",
        ),
        ({}, "task.data.kind: must be given, one of coco_captions, flickr8k"),
        ("scenes", "task.data: must be a mapping with a kind, but got 'scenes'"),
        ({"kind": "scenes", "trian": 3}, "task.data: unknown key 'trian'; did you mean 'train'?"),
        ({"kind": ["scenes"]}, "scenes, but got \"['scenes']\""),
        ({"kind": "flickr8k"}, "task.data.root: must be given, but is missing"),
        ({"kind": "coco"}, "but got 'coco'; did you mean 'coco_captions'?"),
        ({"kind": "coco_captions", "root": "x", "year": 2015}, "year: must be 2014 or 2017, but"),
        ({"kind": "karpathy", "images": "x"}, "task.data.annotations: must be given, but is mis"),
    ],
    ids=["unknown", "none", "text", "key", "list", "root", "coco", "year", "annotations"],
)
def test_wrong_settings_are_explained(value: Any, message: str) -> None:
    with pytest.raises(SpaceError) as failure:
        validate(Holder, {"data": value}, "task", SpaceError)
    assert message in str(failure.value)


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_holds_as_many_of_everything(split: Any) -> None:
    data = load_split(SMALL, split)
    count = getattr(SMALL, split)
    assert len(data) == len(data.images) == len(data.references) == count
    assert data.images.dtype == np.uint8
    assert data.images.shape == (count, 32, 32, 3)


def test_an_encoded_image_decodes_to_the_same_pixels() -> None:
    data = load_split(SMALL, "dev")
    for index in range(len(data)):
        assert np.array_equal(read_image(data.jpeg(index), 32), data.images[index])


def test_a_split_can_be_sent_to_another_process() -> None:
    data = load_split(SMALL, "dev")
    sent = pickle.loads(pickle.dumps(data))
    assert np.array_equal(sent.images, data.images)
    assert sent.references == data.references


def test_an_unknown_split_is_an_error() -> None:
    with pytest.raises(DataError, match=r"split: must be one of dev, test, train, but got 'val'"):
        load_split(SMALL, "val")  # type: ignore[arg-type]


def test_data_need_no_torch() -> None:
    code = "import sys, autocomp.data.captions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
