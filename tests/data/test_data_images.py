from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from flickr8k_files import jpeg_bytes
from PIL import Image

from autocomp.data import images
from autocomp.data.images import cached_stack, encode_png, load_files, read_image, thumbnail
from autocomp.deploy.photos import Unusable
from autocomp.errors import DataError

UNREADABLE = Path("/proc/self/mem")  # a file to all appearance, even for root
RESTLESS = Path("/proc/sys/kernel/random/uuid")  # other bytes each time it is read
on_linux = pytest.mark.skipif(not RESTLESS.is_file(), reason=f"no {RESTLESS}: it is Linux's")


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _palette(transparent: bool) -> bytes:
    image = Image.new("P", (9, 7), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    return encoded(image, **({"transparency": 1} if transparent else {}))


FLAT: dict[str, tuple[bytes, tuple[int, int, int]]] = {
    "rgb": (encoded(Image.new("RGB", (9, 7), (10, 200, 30))), (10, 200, 30)),
    "gray": (encoded(Image.new("L", (9, 7), 90)), (90, 90, 90)),
    "gray 16 bit": (
        encoded(Image.fromarray(np.full((7, 9), 90 * 257, np.uint16))),
        (90, 90, 90),
    ),
    "bilevel": (encoded(Image.new("1", (9, 7), 1)), (255, 255, 255)),
    "cmyk": (encoded(Image.new("CMYK", (9, 7), (0, 255, 255, 0)), "JPEG"), (254, 0, 0)),
    "clear": (encoded(Image.new("RGBA", (9, 7), (9, 9, 9, 0))), (255, 255, 255)),
    "opaque": (encoded(Image.new("RGBA", (9, 7), (10, 200, 30, 255))), (10, 200, 30)),
    "gray and alpha": (encoded(Image.new("LA", (9, 7), (9, 0))), (255, 255, 255)),
    "palette": (_palette(transparent=False), (255, 0, 0)),
    "clear palette": (_palette(transparent=True), (255, 255, 255)),
}


@pytest.mark.parametrize("mode", FLAT)
def test_every_mode_becomes_rgb(mode: str) -> None:
    data, colour = FLAT[mode]
    pixels = read_image(data, 4)
    assert pixels.shape == (4, 4, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - colour).max() <= 1


def test_the_image_is_squashed_not_cropped() -> None:
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, 20:] = 255
    squashed = read_image(encode_png(pixels), 20)
    assert (squashed[:, :8] == 0).all()
    assert (squashed[:, 12:] == 255).all()


def test_exif_orientation_is_applied() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # what was stored as the top is the right side
    turned = read_image(encoded(Image.fromarray(pixels), "JPEG", quality=95, exif=exif), 16)
    assert turned[:, -3:].min() > 200
    assert turned[:, :10].max() < 60


def test_png_is_lossless() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    assert np.array_equal(read_image(encode_png(pixels), 12), pixels)


DAMAGED = {
    "empty": b"",
    "text": b"hello",
    "cut jpeg": jpeg_bytes(0)[:400],
    "cut png": encode_png(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))[:900],
    "header only": jpeg_bytes(0)[:4],
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_image_is_an_error_with_a_reason(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^must be an image Pillow can read, but \w.*$"):
        read_image(data, 8)


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for side in (11, 30):  # Pillow warns of the first and refuses the second
        with pytest.raises(DataError, match="decompression bomb"):
            read_image(encoded(Image.new("L", (side, side))), 8)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.jpg" for index in range(4)]
    for index, path in enumerate(paths):
        path.write_bytes(jpeg_bytes(index))
    return paths


def test_a_stack_is_read_back_without_decoding(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    files[2].write_bytes(b"damaged")
    first = load_files(files, 8)
    monkeypatch.setattr(images.photos, "read_image", lambda *_: pytest.fail("decoded again"))
    again = load_files(files, 8)
    assert np.array_equal(first.images, again.images)
    assert list(first.unreadable) == list(again.unreadable) == [2]
    assert isinstance(again.images, np.memmap)
    assert not again.images.flags.writeable
    assert again.images.shape == (3, 8, 8, 3)
    assert np.array_equal(np.load(again.images.filename), again.images)


def test_a_changed_file_or_size_is_decoded_again(files: list[Path]) -> None:
    first = load_files(files, 8)
    assert load_files(files, 12).images.shape == (4, 12, 12, 3)
    content = jpeg_bytes(9)
    files[1].write_bytes(content)
    changed = load_files(files, 8)
    assert not np.array_equal(changed.images[1], first.images[1])
    assert np.array_equal(changed.images[1], read_image(content, 8))
    assert np.array_equal(changed.images[2], first.images[2])


@pytest.mark.parametrize("again", ["A/1.bmp", "B/1.bmp"], ids=["replaced", "another folder"])
def test_a_file_of_the_same_name_length_and_time_is_decoded(tmp_path: Path, again: str) -> None:
    for name, gray in (("A/1.bmp", 10), (again, 200)):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(encoded(Image.new("L", (9, 7), gray), "BMP"))
        os.utime(file, ns=(1, 1))
        assert (load_files([file], 8).images == gray).all()


def test_the_same_bytes_are_decoded_once(files: list[Path], cache: Path) -> None:
    load_files(files, 8)
    os.utime(files[0], ns=(1, 1))
    files[1] = files[1].rename(files[1].with_name("another.jpg"))
    load_files(files, 8)
    assert len(list((cache / "images").glob("*/images.npy"))) == 1


@on_linux
def test_a_file_that_could_not_be_read_is_tried_again(files: list[Path]) -> None:
    away = files[1].rename(files[1].with_name("away.jpg"))
    files[1].symlink_to(UNREADABLE)
    files[0].write_bytes(b"damaged")
    files[3].unlink()
    first = load_files(files, 8)
    assert first.images.shape == (1, 8, 8, 3)
    assert list(first.unreadable) == [0, 1, 3]
    assert first.unreadable[1] == "must be readable, but Input/output error"
    assert first.unreadable[3] == "must be readable, but No such file or directory"

    away.replace(files[1])
    again = load_files(files, 8)
    assert list(again.unreadable) == [0, 3]
    assert np.array_equal(again.images[0], read_image(files[1].read_bytes(), 8))


@on_linux
def test_a_file_that_changes_while_it_is_read_is_refused(files: list[Path], cache: Path) -> None:
    with pytest.raises(DataError, match=f"^{RESTLESS}: must stay as it is while it is read, but"):
        load_files([files[0], RESTLESS], 8)
    assert not list((cache / "images").glob("*/images.npy"))


@pytest.mark.parametrize("name", ["images.npy", "unreadable.json"])
def test_a_truncated_entry_is_made_again(files: list[Path], cache: Path, name: str) -> None:
    expected = np.array(load_files(files, 8).images)
    (file,) = (cache / "images").glob(f"*/{name}")
    file.write_bytes(file.read_bytes()[:-1] if name == "images.npy" else b"")
    assert np.array_equal(load_files(files, 8).images, expected)


def test_a_failure_leaves_no_entry(cache: Path) -> None:
    def read(index: int) -> np.ndarray:
        if index == 1:
            raise KeyboardInterrupt
        return np.zeros((4, 4, 3), np.uint8)

    with pytest.raises(KeyboardInterrupt):
        cached_stack("key", 2, 4, read)
    assert [path.suffix for path in (cache / "images").iterdir()] == [".lock"]


def test_nothing_readable_is_an_empty_stack() -> None:
    def read(index: int) -> np.ndarray:
        raise Unusable("no")

    stack = cached_stack("key", 2, 4, read)
    assert stack.images.shape == (0, 4, 4, 3)
    assert stack.unreadable == {0: "no", 1: "no"}


def test_those_who_come_at_once_decode_once() -> None:
    calls: list[int] = []

    def read(index: int) -> np.ndarray:
        calls.append(index)
        return np.zeros((4, 4, 3), np.uint8)

    threads = [threading.Thread(target=cached_stack, args=("key", 50, 4, read)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == list(range(50))


def test_a_cache_that_cannot_be_written_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[Path]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOCOMP_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cache: must be a folder .* AUTOCOMP_CACHE"):
        load_files(files, 8)


@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (20, 30)], ids=["high", "wide", "small"])
def test_a_thumbnail_keeps_its_proportions(shape: tuple[int, int]) -> None:
    colours = np.zeros((*shape, 3), np.uint8) + np.uint8([200, 30, 60])
    small = Image.open(io.BytesIO(thumbnail(encode_png(colours), 60)))
    assert small.format == "JPEG"
    assert max(small.size) == min(60, max(shape))
    assert small.width / small.height == pytest.approx(shape[1] / shape[0], rel=0.03)
    assert np.abs(np.asarray(small).astype(int) - [200, 30, 60]).max() < 12


def test_a_thumbnail_of_no_image_is_refused() -> None:
    with pytest.raises(DataError, match="no known image format"):
        thumbnail(b"nonsense", 60)
