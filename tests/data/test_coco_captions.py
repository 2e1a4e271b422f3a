from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from annotation_files import TRAIN, VAL, VAL_IDS, Source, coco_json, write_coco, write_images

from autocomp.data.captions import load_split
from autocomp.data.coco_captions import CocoCaptionsSettings
from autocomp.errors import DataError

LAYOUTS: dict[str, dict[str, Any]] = {
    "2017": {},
    "2014": {"year": 2014},
    "images in a folder": {"nest": "images"},
    "annotations beside": {"texts": ""},
}


@pytest.fixture
def coco(tmp_path: Path) -> Source:
    return write_coco(tmp_path / "coco")


def load(root: Path, split: Any = "train", **changes: Any) -> Any:
    given = {"root": str(root), "image_size": 16, **changes}
    return load_split(CocoCaptionsSettings.model_validate(given), split)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same(tmp_path: Path, layout: str) -> None:
    write_coco(tmp_path, **LAYOUTS[layout])
    assert load(tmp_path).names == tuple(TRAIN)
    assert {*load(tmp_path, "dev").names, *load(tmp_path, "test").names} == set(VAL)


def test_an_image_keeps_its_half_in_any_copy(tmp_path: Path, coco: Source) -> None:
    root = coco.file.parents[1]
    halves = {name: split for split in ("dev", "test") for name in load(root, split).names}
    part = {name: VAL[name] for name in list(VAL)[4:9]}
    write_coco(tmp_path / "less", year=2014)
    file = tmp_path / "less" / "annotations" / "captions_val2014.json"
    file.write_text(json.dumps(coco_json(part, VAL_IDS[4])))
    for split in ("dev", "test"):
        expected = {name for name in part if halves[name] == split}
        assert set(load(tmp_path / "less", split).names) == expected


def test_the_halves_never_change(coco: Source) -> None:
    dev = load(coco.file.parents[1], "dev").names
    assert dev == tuple(f"{key}.jpg" for key in (1001, 1002, 1003, 1007, 1008, 1009, 1010, 1012))


def test_captions_of_an_unlisted_image_are_named(coco: Source) -> None:
    root = coco.file.parents[1]
    coco.edit(lambda content: content["images"].pop(1))
    with pytest.raises(DataError, match="1 of 3 are: image 2: has captions but is not listed"):
        load(root)
    data = load(root, max_unreadable=0.4)
    assert data.names == ("a.jpg", "c.jpg")
    assert data.skipped == ("image 2: has captions but is not listed",)


def test_an_unlisted_image_of_val_counts_in_its_own_half(coco: Source) -> None:
    root = coco.file.parents[1]
    (key,) = (int(name.removesuffix(".jpg")) for name in load(root, "dev").names[:1])
    val = coco.file.with_name("captions_val2017.json")
    content = json.loads(val.read_text())
    content["images"] = [image for image in content["images"] if image["id"] != key]
    val.write_text(json.dumps(content))
    assert load(root, "dev", max_unreadable=0.9).skipped[0].startswith(f"image {key}: has capt")
    assert load(root, "test").skipped == ()


def test_an_id_of_two_images_is_refused(coco: Source) -> None:
    coco.edit(lambda content: content["images"][1].update(id=1))
    with pytest.raises(DataError, match=r"an id must name one image, but 1 names a\.jpg and b\.j"):
        load(coco.file.parents[1])


def test_an_image_in_both_halves_is_refused(coco: Source) -> None:
    root = coco.file.parents[1]
    names = [load(root, split).names[0] for split in ("dev", "test")]
    val = coco.file.with_name("captions_val2017.json")
    content = json.loads(val.read_text())
    for image in content["images"]:
        if image["file_name"] == names[1]:
            image["file_name"] = names[0]
    val.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"must be in one split, but {names[0]} is in "):
        load(root, "dev")


def test_an_image_in_train_and_val_is_refused(coco: Source) -> None:
    val = coco.file.with_name("captions_val2017.json")
    shutil.copy(val, coco.file)
    with pytest.raises(DataError, match=r"in train or in val, but 12 are in both, .* 1001\.jpg"):
        load(coco.file.parents[1])


def test_numbering_each_file_from_one_is_no_overlap(coco: Source) -> None:
    coco.file.write_text(json.dumps(coco_json(TRAIN, VAL_IDS[0])))
    assert load(coco.file.parents[1]).names == tuple(TRAIN)


def test_instances_are_not_captions(coco: Source) -> None:
    def detect(content: Any) -> None:
        for annotation in content["annotations"]:
            del annotation["caption"]
            annotation["bbox"] = [1, 2, 3, 4]

    coco.edit(detect)
    with pytest.raises(DataError, match=r"none of its 6 annotations has one \(.*captions_\*\.json"):
        load(coco.file.parents[1])


def test_a_root_with_both_years_needs_to_be_told(tmp_path: Path) -> None:
    for year in (2014, 2017):
        write_coco(tmp_path, year=year)
    with pytest.raises(DataError, match=r"task\.data\.year: must be given, 2014 or 2017, but is"):
        load(tmp_path)
    for year in (2014, 2017):
        assert load(tmp_path, year=year).files[0].parent.name == f"train{year}"


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("annotations", "but there is no annotations/captions_train2014.json or annotations/capt"),
        ("annotations/captions_train2017.json", "the captions of train2017, but there is no ann"),
        ("annotations/captions_val2017.json", "the captions of val2017, but there is no annotati"),
        ("train2017", "an image folder, but there is no train2017 or images/train2017"),
        ("", "task.data.root: must be the folder of COCO, but there is no "),
    ],
    ids=["annotations", "train", "val", "images", "root"],
)
def test_what_is_missing_is_named(coco: Source, gone: str, message: str) -> None:
    root = coco.file.parents[1]
    (root / gone).rename(root.parent / "away")
    with pytest.raises(DataError) as failure:
        load(root)
    assert message in str(failure.value)


def test_dev_and_test_need_no_train(coco: Source) -> None:
    coco.file.unlink()
    shutil.rmtree(coco.images)
    for split in ("dev", "test"):
        assert len(load(coco.file.parents[1], split)) > 0


def test_a_half_without_images_is_an_error(tmp_path: Path, coco: Source) -> None:
    val = coco.file.with_name("captions_val2017.json")
    val.write_text(json.dumps(coco_json({"1002.jpg": ["one"]}, 1002)))
    write_images(val.parents[1] / "val2017", {"1002.jpg": []})
    assert load(val.parents[1], "dev").names == ("1002.jpg",)
    with pytest.raises(DataError, match="test split: must have at least one image, but has none"):
        load(val.parents[1], "test")


@pytest.mark.parametrize(("split", "count"), [("train", 80), ("dev", 41), ("test", 38)])
def test_the_real_data_load(real_coco_captions: Path, split: str, count: int) -> None:
    data = load(real_coco_captions, split)
    assert len(data) == len(set(data.names)) == count
    assert data.skipped == ()
    assert {len(references) for references in data.references} == {5}
    assert data.images.reshape(count, -1).std(axis=1).min() > 1


def test_a_real_image_has_its_captions(real_coco_captions: Path) -> None:
    data = load(real_coco_captions, "train")
    row = data.names.index("000000125870.jpg")
    expected = "An airport filled with large passenger jets parked next to each other."
    assert expected in data.references[row]
