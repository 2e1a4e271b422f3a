"""What holds of every dataset whose captions are in JSON, whatever the form of the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import TRAIN, VAL, WRITERS, Captions, Source
from flickr8k_files import jpeg_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from autocomp.data.annotations import LARGEST_BYTES
from autocomp.data.captions import SPLITS, load_split
from autocomp.data.images import read_image
from autocomp.errors import DataError

Write = Callable[..., Source]
UNREADABLE = Path("/proc/self/mem")  # a file to all appearance, even for root


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    def written(train: Captions = TRAIN) -> Source:
        return WRITERS[request.param](tmp_path / "data", train)

    return written


@pytest.fixture
def source(write: Write) -> Source:
    return write()


def failure_of(source: Source, split: Any = "train") -> str:
    with pytest.raises(DataError) as failure:
        load_split(source.settings, split)
    message = str(failure.value)
    assert "\n" not in message
    assert len(message) < 1_000
    return message


def rename(source: Source, name: str) -> None:
    """Give the second listed image another name in the file."""

    def change(content: Any) -> None:
        image = content["images"][1]
        image["file_name" if "file_name" in image else "filename"] = name

    source.edit(change)


def test_every_image_is_in_one_split_with_its_captions(source: Source) -> None:
    loaded = {split: load_split(source.settings, split) for split in SPLITS}
    assert loaded["train"].names == tuple(TRAIN)
    assert sorted([*loaded["dev"].names, *loaded["test"].names]) == sorted(VAL)
    assert len(loaded["dev"]) > 0 < len(loaded["test"])
    listed = {**TRAIN, **VAL}
    for split, data in loaded.items():
        assert data.name == split
        assert data.references == tuple(tuple(listed[name]) for name in data.names)
        assert data.skipped == ()
        for index in range(len(data)):
            assert np.array_equal(read_image(data.jpeg(index), 16), data.images[index])


def test_the_images_of_a_split_are_read_only_when_asked_for(source: Source) -> None:
    for name in TRAIN:
        (source.images / name).write_bytes(b"")
    assert len(load_split(source.settings, "dev")) > 0


def test_decoded_images_are_read_back(source: Source, cache: Path) -> None:
    first, again = (load_split(source.settings, "train") for _ in range(2))
    assert np.array_equal(first.images, again.images)
    assert len(list((cache / "images").glob("*/images.npy"))) == 1


UNUSABLE: dict[str, tuple[list[Any], bytes | None, str]] = {
    "damaged": (["one"], jpeg_bytes(1)[:300], "x.jpg: must be an image Pillow can read, but "),
    "no image": (["one"], b"text", "its 4 bytes are of no known image format"),
    "missing": (["one"], None, "x.jpg: no such file"),
    "no captions": ([], jpeg_bytes(1), "x.jpg: has no caption"),
    "empty": (["", " \n"], jpeg_bytes(1), "x.jpg: has no caption; 2 captions are without a word"),
    "not text": ([5, None, ["a"]], jpeg_bytes(1), "has no caption; 3 captions are not text"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_image_is_left_out_and_named(write: Write, case: str) -> None:
    captions, content, reason = UNUSABLE[case]
    source = write({**TRAIN, "x.jpg": captions})
    (source.images / "x.jpg").unlink()
    if content is not None:
        (source.images / "x.jpg").write_bytes(content)
    assert "1 of 4 are: x.jpg: " in failure_of(source)
    data = load_split(source.allowing(0.25), "train")
    assert data.names == tuple(TRAIN)
    (line,) = data.skipped
    assert line.startswith("x.jpg: ")
    assert reason in line


def test_unusable_captions_are_left_out_and_counted(write: Write) -> None:
    source = write({**TRAIN, "x.jpg": [" one\n two ", "", "...", 7, "one two"]})
    data = load_split(source.settings, "train")
    assert data.references[-1] == ("one two", "one two")  # two people may write the same
    assert data.skipped == (
        "x.jpg: 2 captions are without a word",
        "x.jpg: 1 caption is not text",
    )


def test_a_caption_listed_twice_counts_once(source: Source) -> None:
    def repeat(content: Any) -> None:
        if "annotations" in content:
            content["annotations"] += content["annotations"][:1]
        else:
            content["images"][0]["sentences"] += content["images"][0]["sentences"][:1]

    source.edit(repeat)
    data = load_split(source.settings, "train")
    assert list(data.references[0]) == TRAIN["a.jpg"]
    assert data.skipped == ("a.jpg: 1 caption is listed again",)


def test_an_image_listed_twice_counts_once(source: Source) -> None:
    source.edit(lambda content: content["images"].append(content["images"][1]))
    assert "1 of 4 are: b.jpg: is listed again" in failure_of(source)
    data = load_split(source.allowing(0.25), "train")
    assert data.names == tuple(TRAIN)
    assert data.skipped == ("b.jpg: is listed again",)


@pytest.mark.parametrize(
    "name",
    [
        "../a.jpg",
        "/etc/a.jpg",
        "x/../../a.jpg",
        r"..\a.jpg",
        r"C:\a.jpg",
        r"\\host\a",
        "a\0b",
        "\n",
    ],
    ids=["up", "root", "inside up", "back up", "drive", "share", "nul", "line"],
)
def test_a_path_out_of_the_image_folder_is_refused(source: Source, name: str) -> None:
    rename(source, name)
    message = failure_of(source)
    assert "images.1.file" in message
    assert f"must be a path inside the image folder, but got {name!r}" in message


@pytest.mark.parametrize("name", ["é" * 200, "x" * 300, "", ".", "no/such/folder.jpg", "\u2028"])
def test_an_odd_name_is_no_such_file(source: Source, name: str) -> None:
    rename(source, name)
    assert "1 of 3 are: " in failure_of(source)
    (line,) = load_split(source.allowing(0.5), "train").skipped
    assert line.endswith(": no such file")


def test_an_endless_name_is_refused(source: Source) -> None:
    rename(source, "x" * 2_000)
    assert "name: must have at most 1000 characters, but got 'xxx" in failure_of(source)


def test_images_of_every_kind_are_read(write: Write) -> None:
    modes = {"gray.jpg": "L", "cmyk.jpg": "CMYK", "deep.png": "I;16", "palette.gif": "P"}
    source = write({**{name: ["one"] for name in [*modes, "tiny.png", "turned.jpg"]}})
    for name, mode in modes.items():
        Image.new(mode, (30, 20), 0).save(source.images / name)
    Image.new("RGB", (1, 1), "red").save(source.images / "tiny.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20), "red").save(source.images / "turned.jpg", exif=exif)
    data = load_split(source.settings, "train")
    assert data.skipped == ()
    assert data.images.shape == (6, 16, 16, 3)
    assert (data.images[[0, 2, 3]] <= 1).all()
    assert (data.images[1] >= 254).all()  # no ink
    assert (data.images[4] == (255, 0, 0)).all()


def cut(source: Source) -> None:
    source.file.write_bytes(source.file.read_bytes()[:-40])


def overwrite(content: bytes) -> Callable[[Source], None]:
    return lambda source: source.file.write_bytes(content) and None


def enlarge(source: Source) -> None:
    with source.file.open("r+b") as file:
        file.truncate(LARGEST_BYTES + 1)  # sparse: takes no room on the disk


BROKEN: dict[str, tuple[Callable[[Source], None], str]] = {
    "cut": (cut, "must be valid JSON, but EOF while parsing "),
    "empty": (overwrite(b""), "must be valid JSON, but EOF while parsing a value at line 1"),
    "no json": (overwrite(b"image,caption\n"), "must be valid JSON, but expected value"),
    "no text": (overwrite(b"\xff\xd8\xff"), "must be valid JSON, but expected value"),
    "latin": (overwrite(b'{"images": "\xe9"}'), "must be valid JSON, but invalid unicode"),
    "deep": (overwrite(b'{"images": ' + b"[" * 10**6), "JSON, but recursion limit exceeded"),
    "number": (overwrite(b'{"images": ' + b"9" * 10**5), "JSON, but number out of range"),
    "surrogate": (overwrite(b'{"images": "\\ud800"}'), "must be valid JSON, but "),
    "list": (overwrite(b'[{"image": "a.jpg"}]'), "must be an object, but got [{'image': 'a.jpg'}]"),
    "other": (overwrite(b'{"data": []}'), "images: must be given, but is missing"),
    "mapping": (overwrite(b'{"images": {}, "annotations": []}'), "images: must be a valid array"),
    "numbers": (
        overwrite(b'{"images": [1, 2], "annotations": []}'),
        "images.0: must be an object, but got 1; and 1 more (",
    ),
    "huge": (enlarge, "must have at most 1,000,000,000 bytes, but has 1,000,000,001"),
    "no images": (
        overwrite(b'{"images": [], "annotations": []}'),
        "train split: must have at least one image, but has none",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_clear_line(source: Source, case: str) -> None:
    spoil, message = BROKEN[case]
    spoil(source)
    assert message in failure_of(source)
    assert source.file.name in failure_of(source) or "split" in message


@pytest.mark.skipif(not UNREADABLE.is_file(), reason=f"no {UNREADABLE}: it is Linux's")
def test_an_unreadable_file_is_explained(source: Source) -> None:
    source.file.unlink()
    source.file.symlink_to(UNREADABLE)
    assert "must be a file that can be read, but Input/output error" in failure_of(source)


def test_a_byte_order_mark_is_passed_over(source: Source) -> None:
    source.file.write_text(source.file.read_text(), encoding="utf-8-sig")
    assert len(load_split(source.settings, "train")) == len(TRAIN)


def test_a_file_as_large_as_no_photo_is_named(source: Source) -> None:
    with (source.images / "b.jpg").open("r+b") as file:
        file.truncate(2**28 + 1)
    (line,) = load_split(source.allowing(0.5), "train").skipped
    assert line == "b.jpg: must have at most 268,435,456 bytes, but has 268,435,457"


@pytest.mark.parametrize(("given", "kind"), [(0, "karpathy"), (1, "coco_captions")])
def test_the_other_form_is_told_by_its_kind(tmp_path: Path, given: int, kind: str) -> None:
    sources = [write(tmp_path / name, TRAIN) for name, write in WRITERS.items()]
    sources[given].file.write_bytes(sources[1 - given].file.read_bytes())
    message = failure_of(sources[given])
    assert "must be given, but is missing" in message
    assert f"data kind {kind}" in message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def loads_or_explains(source: Source) -> None:
    try:
        data = load_split(source.allowing(0.9), "train")
    except DataError as failure:
        explained = str(failure)
    else:
        assert len(data) == len(data.references) == len(data.images) > 0
        assert all(data.references)
        return
    assert "\n" not in explained
    assert len(explained) < 1_500


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), value=VALUES)
def test_any_value_anywhere_loads_or_is_explained(write: Write, data: Any, value: Any) -> None:
    source = write()

    def replaced(node: Any, depth: int) -> Any:
        """`node`, or a copy of it with `value` in place of something inside."""
        if depth == 0 or not isinstance(node, dict | list) or not node:
            return value
        key = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
        copy = node.copy()
        copy[key] = replaced(node[key], depth - 1)
        return copy

    content = json.loads(source.file.read_text())
    source.file.write_text(json.dumps(replaced(content, data.draw(st.integers(0, 6)))))
    loads_or_explains(source)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), byte=st.integers(0, 255))
def test_a_wrong_byte_anywhere_loads_or_is_explained(write: Write, data: Any, byte: int) -> None:
    source = write()
    content = bytearray(source.file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = byte
    source.file.write_bytes(content)
    loads_or_explains(source)
