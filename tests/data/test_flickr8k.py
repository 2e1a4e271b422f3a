from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flickr8k_files import NAMES, captions_of, jpeg_bytes

from autocomp.data.captions import load_split
from autocomp.data.flickr8k import Flickr8kSettings, read_captions
from autocomp.data.images import read_image
from autocomp.data.tokenizer import Tokenizer
from autocomp.errors import DataError

UNREADABLE = Path("/proc/self/mem")  # a file to all appearance, even for root


def settings(root: Path | str, **changes: object) -> Flickr8kSettings:
    return Flickr8kSettings.model_validate({"root": str(root), "image_size": 16, **changes})


@pytest.mark.parametrize("split", ["train", "dev"])
def test_both_layouts_give_the_listed_images_and_their_captions(layout: Path, split: str) -> None:
    data = load_split(settings(layout), split)
    assert data.name == split
    assert list(data.names) == NAMES[split]
    assert [list(lines) for lines in data.references] == [captions_of(n) for n in data.names]
    assert data.images.shape == (len(data), 16, 16, 3)
    assert data.skipped == ()


def test_an_image_is_its_file_decoded(kaggle: Path) -> None:
    data = load_split(settings(kaggle), "train")
    for index, name in enumerate(data.names):
        assert data.jpeg(index) == (kaggle / "Images" / name).read_bytes()
        assert np.array_equal(read_image(data.jpeg(index), 16), data.images[index])


def test_a_split_is_read_only_when_asked_for(kaggle: Path) -> None:
    for name in NAMES["train"]:
        (kaggle / "Images" / name).write_bytes(b"")
    assert len(load_split(settings(kaggle), "dev")) == 2


def test_unusable_images_are_left_out_and_named(kaggle: Path) -> None:
    (kaggle / "Images" / "b.jpg").write_bytes(jpeg_bytes(1)[:300])
    (kaggle / "Images" / "c.jpg").unlink()
    data = load_split(settings(kaggle, max_unreadable=0.7), "train")
    assert data.names == ("a.jpg",)
    assert len(data.files) == len(data.images) == len(data.references) == 1
    missing, damaged = data.skipped
    assert missing == "c.jpg: no such file"
    assert damaged.startswith("b.jpg: must be an image Pillow can read, but ")


def test_too_many_unusable_images_are_an_error_that_counts_and_names_them(kaggle: Path) -> None:
    for name in NAMES["train"]:
        (kaggle / "Images" / name).write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"max_unreadable\), but 3 of 3 are: a.jpg: .*; b.jpg: "):
        load_split(settings(kaggle), "train")


def test_a_listed_image_without_captions_is_named(kaggle: Path) -> None:
    with (kaggle / "Flickr_8k.devImages.txt").open("a") as file:
        file.write("f.jpg\n")
    (kaggle / "Images" / "f.jpg").write_bytes(jpeg_bytes(1))
    with pytest.raises(DataError, match=r"1 of 3 are: f.jpg: has no caption$"):
        load_split(settings(kaggle), "dev")


def test_what_is_listed_twice_counts_once(kaggle: Path) -> None:
    (kaggle / "Flickr_8k.trainImages.txt").write_text("a.jpg\nb.jpg\nc.jpg\n./a.jpg\n")
    with pytest.raises(DataError, match=r"1 of 4 are: a.jpg: is listed again$"):
        load_split(settings(kaggle), "train")
    data = load_split(settings(kaggle, max_unreadable=0.25), "train")
    assert list(data.names) == NAMES["train"]
    assert data.skipped == ("a.jpg: is listed again",)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_an_image_in_two_lists_is_refused(kaggle: Path, split: str) -> None:
    with (kaggle / "Flickr_8k.devImages.txt").open("a") as file:
        file.write("a.jpg\n")
    with pytest.raises(DataError, match=r"must be in one split, but a.jpg is in train and dev$"):
        load_split(settings(kaggle), split)


def test_captions_of_an_image_that_is_nowhere_are_named(kaggle: Path) -> None:
    with (kaggle / "captions.txt").open("a") as file:
        file.write("".join(f"{name},a dog\n" for name in ("lost.jpg", "lost.jpg", "unlisted.jpg")))
    (kaggle / "Images" / "unlisted.jpg").write_bytes(jpeg_bytes(1))
    assert load_split(settings(kaggle), "dev").skipped == ()  # it may be of the missing list
    (kaggle / "Flickr_8k.testImages.txt").write_text("")
    for split in ("train", "dev"):
        lines = load_split(settings(kaggle), split).skipped
        assert lines == ("lost.jpg: has captions but is not listed",)


def _remove(*names: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for name in names:
            (root / name).rename(root / f"{name}.away")

    return change


def _write(name: str, content: str | bytes) -> Callable[[Path], None]:
    raw = content.encode() if isinstance(content, str) else content

    def change(root: Path) -> None:
        (root / name).write_bytes(raw)

    return change


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no image folder": (_remove("Images"), "must hold an image folder, but there is no Images or"),
    "no captions": (_remove("captions.txt"), "a captions file, but there is no captions.txt or"),
    "no list": (
        _remove("Flickr_8k.trainImages.txt"),
        "official list of the train split, but there is no Flickr_8k.trainImages.txt",
    ),
    "empty list": (
        _write("Flickr_8k.trainImages.txt", "\n"),
        "train split: must have at least one image, but has none",
    ),
    "name outside": (
        _write("Flickr_8k.trainImages.txt", "a.jpg\n\n../b.jpg\n"),
        "trainImages.txt:3: must be a path inside the image folder, but got '../b.jpg'",
    ),
    "empty captions": (_write("captions.txt", ""), "captions, but its first line is empty"),
    "header only": (_write("captions.txt", "image,caption\n"), "captions, but there are none"),
    "other header": (_write("captions.txt", "id,text\n"), "txt:1: must be 'image,caption', but"),
    "bare comma": (_write("captions.txt", "image,caption\na.jpg,one, two\n"), "txt:2: must be an"),
    "open quote": (_write("captions.txt", 'image,caption\na.jpg,"one\n'), "txt:2: must be valid"),
    "no number": (_write("captions.txt", "a.jpg#0\tone\na.jpg two\n"), "txt:2: must be 'name.jpg#"),
    "not text": (_write("captions.txt", b"image,caption\na.jpg,\xff\n"), "must be UTF-8 text, but"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_one_clear_line(kaggle: Path, case: str) -> None:
    change, message = BROKEN[case]
    change(kaggle)
    with pytest.raises(DataError) as failure:
        load_split(settings(kaggle), "train")
    assert message in str(failure.value)
    assert str(kaggle) in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.skipif(not UNREADABLE.is_file(), reason=f"no {UNREADABLE}: it is Linux's")
@pytest.mark.parametrize("name", ["captions.txt", "Flickr_8k.trainImages.txt"])
def test_an_unreadable_file_is_explained(kaggle: Path, name: str) -> None:
    (kaggle / name).unlink()
    (kaggle / name).symlink_to(UNREADABLE)
    with pytest.raises(DataError, match=rf"{name}: must be a file that can be read, but Input"):
        load_split(settings(kaggle), "train")


def test_a_missing_test_list_is_named(kaggle: Path) -> None:
    with pytest.raises(DataError, match=r"test split, but there is no Flickr_8k.testImages.txt"):
        load_split(settings(kaggle), "test")


def test_a_named_captions_file_is_used(kaggle: Path) -> None:
    (kaggle / "mine.txt").write_text("a.jpg#0\tone\nb.jpg#0\ttwo\nc.jpg#0\tthree\n")
    data = load_split(settings(kaggle, captions_file="mine.txt"), "train")
    assert data.references == (("one",), ("two",), ("three",))


def test_quotes_blank_lines_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    file = tmp_path / "captions.txt"
    file.write_text('image,caption\na.jpg," "\na.jpg,"one, ""two"""\n\n', encoding="utf-8-sig")
    assert read_captions(file) == {"a.jpg": ("", 'one, "two"')}


def test_captions_without_words_are_left_out_and_counted(kaggle: Path) -> None:
    lines = ["d.jpg,", "d.jpg,one", "d.jpg,.", "d.jpg, ... ", "e.jpg,"]
    (kaggle / "captions.txt").write_text("\n".join(["image,caption", *lines]))
    data = load_split(settings(kaggle, max_unreadable=0.5), "dev")
    assert data.references == (("one",),)
    assert data.skipped == (
        "e.jpg: has no caption; 1 caption is without a word",
        "d.jpg: 3 captions are without a word",
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
def test_lines_end_as_on_any_system(kaggle: Path, end: str) -> None:
    for name in ("captions.txt", "Flickr_8k.devImages.txt"):
        text = (kaggle / name).read_text()
        (kaggle / name).write_bytes(text.replace("\n", end).encode())
    data = load_split(settings(kaggle), "dev")
    assert [list(lines) for lines in data.references] == [captions_of(n) for n in NAMES["dev"]]


def test_the_root_may_be_relative_or_name_a_variable(
    kaggle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(kaggle.parent)
    monkeypatch.setenv("HERE", str(kaggle.parent))
    monkeypatch.setenv("HOME", str(kaggle.parent))
    for root in ("flickr8k", "${HERE}/flickr8k", "$HERE/flickr8k", "~/flickr8k"):
        assert len(load_split(settings(root), "dev")) == 2


def test_an_unset_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(DataError, match="root: the environment variable NOWHERE must be set"):
        load_split(settings("${NOWHERE}/flickr8k"), "dev")


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"task\.data\.root: must be the folder of Flickr8k, but there is no .*nothing",
    ):
        load_split(settings(tmp_path / "nothing"), "dev")


@pytest.mark.parametrize(("split", "count"), [("train", 6000), ("dev", 1000)])
def test_the_real_data_load(real_flickr8k: Path, split: str, count: int) -> None:
    data = load_split(settings(real_flickr8k), split)
    assert len(data) == len(set(data.names)) == count
    assert data.skipped == ()
    assert {len(lines) for lines in data.references} == {5}
    assert data.images.reshape(count, -1).std(axis=1).min() > 1


def test_real_captions_keep_their_commas_and_have_words(real_flickr8k: Path) -> None:
    captions = read_captions(real_flickr8k / "captions.txt")
    lines = [line for group in captions.values() for line in group]
    assert len(lines) == 35_000
    assert "A person on a bike wearing a red helmet , riding down a street ." in lines
    assert not any(line.startswith('"') and line.endswith(',"') for line in lines)
    assert len(Tokenizer.train(lines, min_count=5)) > 2_000


def test_a_resized_split_is_the_files_read_at_that_size(kaggle: Path) -> None:
    split = load_split(settings(kaggle), "train")
    small = split.resized(12)
    assert small.images.shape == (len(split), 12, 12, 3)
    assert np.array_equal(small.images[0], read_image(small.jpeg(0), 12))
    assert (small.names, small.references) == (split.names, split.references)
