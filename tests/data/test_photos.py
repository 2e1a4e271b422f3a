from __future__ import annotations

from pathlib import Path

import pytest
from flickr8k_files import jpeg_bytes

from autocomp.data.photos import Photo, first_of, given_folder, is_file, is_folder, load_photos
from autocomp.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    for index in range(4):
        (tmp_path / f"{index}.jpg").write_bytes(jpeg_bytes(index))
    return [Photo(f"{i}.jpg", tmp_path / f"{i}.jpg", (f"caption {i}",)) for i in range(4)]


def test_everything_left_out_is_in_its_order(photos: list[Photo]) -> None:
    photos[0].file.write_bytes(b"")
    photos[1] = photos[1]._replace(references=(), remarks=("1 caption is not text",))
    photos[2] = photos[2]._replace(remarks=("one caption is empty",))
    split = load_photos("dev", photos, "here", 8, 0.6, lost=["9.jpg: is listed again"])
    assert split.names == ("2.jpg", "3.jpg")
    assert split.references == (("caption 2",), ("caption 3",))
    lost, silent, unreadable, remark = split.skipped
    assert lost == "9.jpg: is listed again"
    assert silent == "1.jpg: has no caption; 1 caption is not text"
    assert unreadable.startswith("0.jpg: must be an image Pillow can read")
    assert remark == "2.jpg: one caption is empty"


@pytest.mark.parametrize(("share", "accepted"), [(0.19, False), (0.2, True)])
def test_what_is_lost_counts(photos: list[Photo], share: float, accepted: bool) -> None:
    lost = ["9.jpg: is listed again"]
    if accepted:
        assert len(load_photos("dev", photos, "here", 8, share, lost)) == 4
    else:
        with pytest.raises(DataError, match=r"^here: .* 1 of 5 are: 9.jpg: is listed again$"):
            load_photos("dev", photos, "here", 8, share, lost)


def test_no_photos_are_an_error() -> None:
    with pytest.raises(DataError, match=r"^here: must have at least one image, but has none$"):
        load_photos("dev", [], "here", 8, 0.5)


def test_any_name_may_be_asked_for(tmp_path: Path) -> None:
    for name in ("x" * 5_000, "a\0b", "no/such"):
        assert not is_file(tmp_path / name)
        assert not is_folder(tmp_path / name)
        with pytest.raises(DataError):
            given_folder(str(tmp_path / name), "root", "COCO")


def test_the_first_there_is_is_taken(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "c").write_text("")
    names = ("a", "b", "c")
    assert first_of(tmp_path, names, "a file") == tmp_path / "c"
    assert first_of(tmp_path, names, "a folder", is_folder) == tmp_path / "b"
    with pytest.raises(DataError, match=r"must hold a file, but there is no x or y$"):
        first_of(tmp_path, ("x", "y"), "a file")
