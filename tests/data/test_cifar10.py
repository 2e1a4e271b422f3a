"""CIFAR-10 in its binary version, in torchvision's files and as folders."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autocomp.data.cifar10 import BATCHES, CLASSES, FORMS, Cifar10Settings, load_cifar10
from autocomp.data.images import read_image
from autocomp.data.split import SPLITS, ImageSplit
from autocomp.errors import DataError

RECORDS = 20
BINARY, PICKLED = FORMS
REAL = Path(os.environ.get("AUTOCOMP_DATA", "/nonexistent")) / "cifar10"


def load(root: Path, split: Any, **settings: Any) -> ImageSplit:
    return load_cifar10(Cifar10Settings(root=str(root), **settings), split)


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    folder = tmp_path / BINARY
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*BATCHES["train"], *BATCHES["test"]):
        records = rng.integers(0, 256, (RECORDS, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return tmp_path


@pytest.mark.parametrize("inside", [True, False], ids=["parent", "folder itself"])
def test_a_record_is_a_class_and_three_planes(binary: Path, inside: bool) -> None:
    split = load(binary if inside else binary / BINARY, "test")
    records = np.fromfile(binary / BINARY / "test_batch.bin", np.uint8).reshape(-1, 3073)
    assert len(split) == RECORDS
    for index, record in enumerate(records):
        assert split.references[index] == (CLASSES[record[0]],)
        assert np.array_equal(split.images[index, 3, 5], record[1:].reshape(3, 32, 32)[:, 3, 5])
    assert split.names[7] == "test_batch/00007"
    assert np.array_equal(read_image(split.jpeg(7), 32), split.images[7])


@pytest.mark.parametrize("source", ["train", "test"])
def test_dev_is_a_part_of_train_or_test(binary: Path, source: str) -> None:
    settings = {"dev_from": source, "dev_fraction": 0.4}
    names = {split: set(load(binary, split, **settings).names) for split in SPLITS}
    assert not names["dev"] & (names["train"] | names["test"])
    assert sum(map(len, names.values())) == 6 * RECORDS
    assert all(name.startswith("test") == (source == "test") for name in names["dev"])


def test_other_sizes_are_scaled(binary: Path) -> None:
    assert load(binary, "test", image_size=24).images.shape == (RECORDS, 24, 24, 3)
    assert load(binary, "test").resized(24).images.shape == (RECORDS, 24, 24, 3)


def test_a_copy_of_the_same_length_and_time_is_another(binary: Path) -> None:
    file = binary / BINARY / "test_batch.bin"
    for value in (10, 200):
        file.write_bytes((b"\x03" + bytes([value]) * 3072) * RECORDS)
        os.utime(file, ns=(1, 1))
        assert (load(binary, "test").images == value).all()


def cut(folder: Path) -> None:
    file = folder / "data_batch_2.bin"
    file.write_bytes(file.read_bytes()[:-1])


def mislabelled(folder: Path) -> None:
    file = folder / "data_batch_2.bin"
    file.write_bytes(b"\x0b" + file.read_bytes()[1:])


def missing(folder: Path) -> None:
    (folder / "data_batch_2.bin").unlink()


@pytest.mark.parametrize(
    ("damage_", "message"),
    [
        (cut, r"data_batch_2\.bin: must hold records of 3,073 bytes, but has 61,459"),
        (mislabelled, r"data_batch_2\.bin: classes must be from 0 to 9, but got 11"),
        (missing, r"data_batch_2\.bin: must be there, but is missing"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_file_is_refused(binary: Path, damage_: Any, message: str) -> None:
    damage_(binary / BINARY)
    with pytest.raises(DataError, match=message):
        load(binary, "train")


def test_torchvisions_files_give_the_same_images(binary: Path, tmp_path: Path) -> None:
    expected = {split: load(binary, split) for split in SPLITS}
    folder = tmp_path / "torchvision" / PICKLED
    folder.mkdir(parents=True)
    for file in (binary / BINARY).iterdir():
        records = np.fromfile(file, np.uint8).reshape(-1, 3073)
        batch = {"labels": records[:, 0].tolist(), "data": records[:, 1:].copy()}
        (folder / file.stem).write_bytes(pickle.dumps(batch))
    for root in (folder.parent, folder):
        for name, split in expected.items():
            found = load(root, name)
            assert (found.names, found.references) == (split.names, split.references)
            assert np.array_equal(found.images, split.images)


def test_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"must hold {BINARY}/, {PICKLED}/ or image folders"):
        load(tmp_path, "train")


def test_folders_must_have_its_classes(tmp_path: Path) -> None:
    for name in ("cat", "unicorn"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "train" / name / "0.png")
    with pytest.raises(DataError, match="ten classes, but got 'unicorn'"):
        load(tmp_path, "train", dev_fraction=1e-9)


@pytest.mark.skipif(not REAL.exists(), reason="AUTOCOMP_DATA has no cifar10")
def test_the_real_images_are_whole() -> None:
    sizes = {split: len(load(REAL, split)) for split in SPLITS}
    assert sizes["test"] == 500
    assert sizes["train"] + sizes["dev"] == 4000
    for split in SPLITS:
        assert {name for (name,) in load(REAL, split).references[:64]} == set(CLASSES)
