"""Pickled batches: read as they are published, and never allowed to run anything."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocomp.data.pickled import read_pickled
from autocomp.errors import DataError

LABELS = [3, 0, 9, 255]
DATA = np.arange(48, dtype=np.uint8).reshape(4, 12) * 5


def published() -> bytes:
    """As Python 2 wrote them: strings of bytes, which the newer protocols have no more."""

    def text(value: bytes) -> bytes:
        if len(value) < 256:
            return b"U" + struct.pack("<B", len(value)) + value
        return b"T" + struct.pack("<i", len(value)) + value

    empty = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n"
    empty += b"K\x00\x85" + text(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = empty + b"(K\x01K\x04K\x0c\x86" + dtype + b"\x89" + text(DATA.tobytes()) + b"tb"
    labels = b"](" + b"".join(b"K" + struct.pack("<B", one) for one in LABELS) + b"e"
    names = b"](" + text(b"leptodactylus_pentadactylus_s_000004.png") + b"e"
    items = {b"batch_label": text(b"training batch 1 of 5"), b"labels": labels}
    items |= {b"data": array, b"filenames": names}
    pairs = b"".join(text(key) + value for key, value in items.items())
    return b"\x80\x02}(" + pairs + b"u."


def written(protocol: int, order: Any = "C") -> bytes:
    return pickle.dumps({"data": np.array(DATA, order=order), "labels": LABELS}, protocol)


@pytest.mark.parametrize(
    "content",
    [published(), written(2), written(3), written(4), written(2, "F")],
    ids=["published", "protocol 2", "protocol 3", "protocol 4", "column by column"],
)
def test_a_batch_is_read_as_it_is(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(content)
    found = read_pickled(tmp_path / "batch", 12)
    assert found.dtype == np.uint8
    assert found[:, 0].tolist() == LABELS
    assert np.array_equal(found[:, 1:], DATA)


def test_the_published_form_is_what_pickle_and_numpy_read() -> None:
    batch = pickle.loads(published(), encoding="latin1")
    assert np.array_equal(batch["data"], DATA)


class Calls:
    """Pickled, it calls a function with arguments when it is read."""

    def __init__(self, function: Callable[..., Any], *given: Any) -> None:
        self.reduced = function, given

    def __reduce__(self) -> Any:
        return self.reduced


def run_code(path: Path) -> bytes:
    return pickle.dumps({"data": Calls(exec, f"open({str(path)!r}, 'w')"), "labels": [1]})


def open_file(path: Path) -> bytes:
    return pickle.dumps(Calls(open, str(path), "w"), protocol=0)


def in_the_state(path: Path) -> bytes:
    return b"\x80\x02cnumpy\nndarray\n)R(Ncbuiltins\nexec\nX\x04\x00\x00\x00passtRb."


def of_a_known_module(path: Path) -> bytes:
    return b"cnumpy\nload\n(X\x01\x00\x00\x00xtR."


def by_a_path_of_names(path: Path) -> bytes:
    return b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93."


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (run_code, r"builtins\.exec"),
        (open_file, r"io\.open"),
        (in_the_state, r"builtins\.exec"),
        (of_a_known_module, r"numpy\.load"),
        (by_a_path_of_names, r"numpy\.ndarray\.__class__"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_runs_code_is_refused_and_not_run(
    make: Callable[[Path], bytes], named: str, tmp_path: Path
) -> None:
    (tmp_path / "batch").write_bytes(make(tmp_path / "owned"))
    with pytest.raises(DataError, match=rf"a whole batch of CIFAR-10, but it names '{named}'"):
        read_pickled(tmp_path / "batch", 12)
    assert not (tmp_path / "owned").exists()


NESTED = b"\x80\x02})" + b"2\x86" * 60 + b"Ns."
GETS = b"\x80\x02})q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"Ns."


@pytest.mark.parametrize(
    "content",
    [
        NESTED,
        GETS,
        b"\x80\x02}("
        + b"".join(b"J" + struct.pack("<i", 2**20 * k) + b"N" for k in range(99))
        + b"u.",
        b"\x80\x04\x8f(K\x01\x90.",
        b"I1\n.",
        b"\x80\x02}(U\x04dataPsecret\nu.",
    ],
    ids=["nested", "nested by name", "numbers as keys", "a set", "older", "a persistent name"],
)
def test_what_a_batch_does_without_is_refused_at_once(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DataError, match="a whole batch of CIFAR-10"):
        read_pickled(tmp_path / "batch", 12)


def test_a_few_bytes_take_no_memory(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(DataError, match="labels must be a list"):
        read_pickled(tmp_path / "batch", 12)


def test_text_is_no_pixels(tmp_path: Path) -> None:
    content = written(2)
    text = DATA.tobytes().decode("latin1").encode()
    odd = text.replace("\u00eb".encode(), "\u0101".encode())
    assert text in content
    assert odd != text
    (tmp_path / "batch").write_bytes(content.replace(text, odd))
    with pytest.raises(DataError, match="batch: "):
        read_pickled(tmp_path / "batch", 12)


def test_a_stand_in_cannot_be_changed(tmp_path: Path) -> None:
    """What a pickle sets on a class would last until the next one is read."""
    (tmp_path / "batch").write_bytes(
        b"\x80\x02cnumpy\nndarray\nN}X\x05\x00\x00\x00givenK\x01s\x86b."
    )
    with pytest.raises(DataError, match="must be a whole batch"):
        read_pickled(tmp_path / "batch", 12)
    (tmp_path / "batch").write_bytes(published())
    assert read_pickled(tmp_path / "batch", 12)[:, 0].tolist() == LABELS


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    for content in (published(), written(4)):
        (tmp_path / "batch").write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match="batch: must be a whole batch of CIFAR-10"):
            read_pickled(tmp_path / "batch", 12)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([DATA], "must hold a dictionary, but holds list"),
        ({"labels": LABELS}, r"data must be a uint8 array \(4, 12\)"),
        ({"labels": LABELS, "data": DATA[:3]}, r"data must be a uint8 array \(4, 12\)"),
        ({"labels": LABELS, "data": DATA.astype(np.int16)}, "data must be a uint8 array"),
        ({"labels": LABELS, "data": DATA.tolist()}, "data must be a uint8 array"),
        ({"labels": ["cat"], "data": DATA[:1]}, "labels must be a list of classes"),
        ({"labels": [256], "data": DATA[:1]}, "labels must be a list of classes"),
        ({"labels": [], "data": DATA[:0]}, "labels must be a list of classes"),
        ({"labels": np.array(LABELS), "data": DATA}, "labels must be a list of classes"),
        ({"fine_labels": LABELS, "data": DATA}, "labels must be a list of classes"),
    ],
    ids=["list", "no data", "rows", "int16", "lists", "words", "256", "none", "array", "cifar-100"],
)
def test_another_content_is_refused(batch: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(pickle.dumps(batch))
    with pytest.raises(DataError, match=message):
        read_pickled(tmp_path / "batch", 12)
