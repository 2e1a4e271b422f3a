"""A batch of CIFAR-10 as torchvision downloads it: pickle, read without letting it do anything.

A pickle names functions and says what to call them with. Here every name becomes a stand-in that
keeps what it is called with and computes nothing; names that no such file has are refused. So is
what could take more time or memory than the file has bytes: keys that are no strings, and whatever
else a batch does without. Python's own unpickler does the reading, for the one in C makes room for
as many objects as it is told to.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from autocomp.errors import DataError

LARGEST_BYTES = 2**27  # four times a batch
NAMES = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
"""What pickles of dictionaries with bytes, lists and arrays mention."""


class _StandIn:
    """What a pickle takes for a function or class of `NAMES`: `given` and `state` are what it says.

    It sets its state itself, for otherwise a pickle could set any attribute.
    """

    given: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *given: Any) -> None:
        self.given = given

    def __setstate__(self, state: Any) -> None:
        self.state = state


NEEDED = (
    *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
    *("BININT", "BININT1", "BININT2", "BINSTRING", "SHORT_BINSTRING", "BINBYTES"),
    *("SHORT_BINBYTES", "BINBYTES8", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
)
"""The instructions that a batch is written with."""


class _Dictionary(dict[str, Any]):
    """What a pickle's dictionaries are: a key that is no string may take for ever to look up."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) is not str:
            raise pickle.UnpicklingError(f"it has a key of type {type(key).__name__}")
        super().__setitem__(key, value)


class _Unpickler(pickle._Unpickler):
    def load_empty_dictionary(self) -> None:
        self.append(_Dictionary())  # type: ignore[attr-defined]

    dispatch = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
        for name in NEEDED
    }
    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dictionary  # type: ignore[assignment]

    def find_class(self, module: str, name: str) -> type[_StandIn]:
        if (module, name) not in NAMES:
            raise pickle.UnpicklingError(f"it names {f'{module}.{name}'!r}")
        return _StandIn


def read_pickled(file: Path, width: int) -> np.ndarray:
    """(N, 1 + width) uint8: the class of each image, then its values, as in the binary version.

    `DataError` if the file is cut short, names anything but arrays, or holds something else.
    """
    content = _content(file)
    labels = content.get("labels")
    if not isinstance(labels, list) or not labels or not all(_is_byte(one) for one in labels):
        raise DataError(f"{file}: labels must be a list of classes, whole numbers, but is not")
    values = _values(content.get("data"), (len(labels), width))
    if values is None:
        rule = f"must be a uint8 array ({len(labels)}, {width}), a row for each label"
        raise DataError(f"{file}: data {rule}, but is not")
    return np.concatenate([np.array(labels, np.uint8)[:, None], values], axis=1)


def _is_byte(value: Any) -> bool:
    return type(value) is int and 0 <= value < 256


def _content(file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    if size > LARGEST_BYTES:
        raise DataError(f"{file}: must have at most {LARGEST_BYTES:,} bytes, but has {size:,}")
    try:
        with file.open("rb") as stream:
            content = _Unpickler(stream, encoding="latin1").load()
    except KeyError:
        reason = "has instructions that no batch needs"
        raise DataError(f"{file}: must be a whole batch of CIFAR-10, but {reason}") from None
    # bytes that are no pickle, or one made to harm, end in any exception there is
    except Exception as failure:
        raise DataError(f"{file}: must be a whole batch of CIFAR-10, but {failure}") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: must hold a dictionary, but holds {type(content).__name__}")
    return content


def _values(array: Any, shape: tuple[int, int]) -> np.ndarray | None:
    """What stands for a uint8 array of this shape as one; None if it stands for something else."""
    match array:
        case _StandIn(state=(_, found, _StandIn(given=("u1", *_)), is_transposed, content)):
            values = np.frombuffer(_bytes(content), np.uint8)
            if found != shape or values.size != shape[0] * shape[1]:
                return None
            return values.reshape(shape, order="F" if is_transposed else "C")
    return None


def _bytes(content: Any) -> bytes:
    """The bytes of a string of Python 2, of Python 3, or of the latter in the former's protocol."""
    match content:
        case bytes():
            return content
        case str(text) | _StandIn(given=(str(text), "latin1")):
            return text.encode("latin1") if max(text, default="") < "\u0100" else b""
    return b""
