"""Image folders: which image is in which split, and what is wrong with a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_files import SHAPES, write_shapes
from PIL import Image

from autocomp.data.image_folder import ImageFolderSettings, is_dev, load_image_folder
from autocomp.data.labels import load_labelled
from autocomp.data.split import SPLITS, ImageSplit
from autocomp.errors import DataError

SIDE = 24


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), splits=("train", "val", "test"))


@pytest.fixture
def copy(shapes: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shapes, tmp_path / "copy")


def load(root: Path, split: Any, **settings: Any) -> ImageSplit:
    given = {"root": str(root), "image_size": SIDE, **settings}
    return load_image_folder(ImageFolderSettings.model_validate(given), split)


def test_a_split_has_the_pixels_and_the_class_of_each_file(shapes: Path) -> None:
    split = load(shapes, "train")
    assert len(split) == 72
    for index in (0, 30, 71):
        name, (label,) = split.names[index], split.references[index]
        assert name.split("/")[0] == label in SHAPES
        own = np.asarray(Image.open(shapes / "train" / name))
        assert np.array_equal(split.images[index], own)
        assert split.jpeg(index) == (shapes / "train" / name).read_bytes()


@pytest.mark.parametrize("split", SPLITS)
def test_the_first_images_are_of_all_classes(split: str, shapes: Path) -> None:
    found = load(shapes, split)
    assert {label for (label,) in found.references[:12]} == set(SHAPES)
    assert found.names[0] == "line/008.png"  # as on any machine


@pytest.mark.parametrize("source", ["train", "test"])
def test_dev_is_a_part_that_no_other_split_has(shapes: Path, source: str) -> None:
    names = {
        split: set(load(shapes, split, dev_from=source, dev_fraction=0.3).names) for split in SPLITS
    }
    whole = set(load(shapes, source).names)
    assert names["dev"] | names[source] == whole
    assert not names["dev"] & names[source]
    assert 0.1 * len(whole) < len(names["dev"]) < 0.5 * len(whole)
    (other,) = {"train", "test"} - {source}
    assert names[other] == set(load(shapes, other).names)


def test_val_selects_where_there_is_one(copy: Path) -> None:
    assert load(copy, "dev").files[0].is_relative_to(copy / "val")
    assert len(load(copy, "train")) == 72
    shutil.rmtree(copy / "val")
    assert load(copy, "dev").files[0].is_relative_to(copy / "train")
    assert len(load(copy, "train")) < 72


def test_an_image_is_in_the_same_split_whatever_others_there_are(copy: Path) -> None:
    before = load(copy, "dev", dev_from="train", dev_fraction=0.4).names
    kept = [name for name in before if name.startswith("disc")][:3]
    for file in (copy / "train" / "disc").iterdir():
        if f"disc/{file.name}" not in kept:
            file.unlink()
    after = load(copy, "dev", dev_from="train", dev_fraction=0.4).names
    assert after == tuple(name for name in before if not name.startswith("disc") or name in kept)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_the_part_is_about_as_large_as_asked(fraction: float) -> None:
    found = sum(is_dev(f"cat/{index}.png", fraction) for index in range(2000))
    assert found / 2000 == pytest.approx(fraction, abs=0.03)


def test_what_is_no_image_or_in_no_class_is_named_and_counted(copy: Path) -> None:
    (copy / "train" / "disc" / "000.png").write_bytes(b"no image")
    (copy / "train" / "notes.txt").write_text("hello")
    (copy / "train" / ".DS_Store").write_text("the system's own")
    split = load(copy, "train", max_unreadable=0.1)
    assert len(split) == 71
    (line,) = split.left_out
    assert line.startswith("train: 2 skipped: notes.txt: lies in the folder of no class; disc/000.")
    assert "notes.txt" not in str(load(copy, "dev", dev_from="train", max_unreadable=0.1).skipped)
    with pytest.raises(DataError, match=r"but 1 of 73 are: notes\.txt"):
        load(copy, "train")


def test_a_class_may_be_a_link_and_hidden_folders_are_none(copy: Path, tmp_path: Path) -> None:
    expected = load(copy, "train").names
    (copy / "train" / "line").rename(tmp_path / "elsewhere")
    (copy / "train" / "line").symlink_to(tmp_path / "elsewhere")
    (copy / "train" / ".cache").mkdir()
    assert load(copy, "train").names == expected


def test_images_may_lie_deeper(copy: Path) -> None:
    (copy / "train" / "disc" / "more").mkdir()
    (copy / "train" / "disc" / "000.png").rename(copy / "train" / "disc" / "more" / "0.png")
    split = load(copy, "train")
    assert split.references[split.names.index("disc/more/0.png")] == ("disc",)


def remove_train(root: Path) -> None:
    shutil.rmtree(root / "train")


def remove_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def empty_class(root: Path) -> None:
    (root / "train" / "ring").mkdir()


def one_class(root: Path) -> None:
    for name in ("disc", "line"):
        shutil.rmtree(root / "train" / name)


def other_class(root: Path) -> None:
    (root / "test" / "square").rename(root / "test" / "squares")


@pytest.mark.parametrize(
    ("change_", "message"),
    [
        (remove_train, "must hold the training images, but there is no train"),
        (remove_test, "must hold the images of the test split, but there is no test"),
        (empty_class, "ring: must hold images of its class, but holds none"),
        (one_class, "train: must hold a folder for each class, but holds 1"),
        (other_class, "squares: must be a class of train, but is none; the nearest is 'square'"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_folder_of_another_form_is_refused(copy: Path, change_: Any, message: str) -> None:
    change_(copy)
    with pytest.raises(DataError, match=message):
        load(copy, "test")


def test_no_other_split_is_known(shapes: Path) -> None:
    with pytest.raises(DataError, match="split: must be one of"):
        load_labelled(ImageFolderSettings(root=str(shapes)), "val")  # type: ignore[arg-type]
