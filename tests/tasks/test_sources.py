"""The source of a task: the user's modules, however they import one another, and no library."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from autocomp.tasks.sources import own_sources

FILES = {
    "mine/__init__.py": "",
    "mine/task.py": "import json, beside\nfrom . import sizes\nfrom .deep import nets\n",
    "mine/sizes.py": "def late():\n    from mine.late import one\n",
    "mine/late.py": "import autocomp.errors\nfrom .. import mine\n",
    "mine/deep/__init__.py": "from .blocks import BLOCK\n",
    "mine/deep/nets.py": "from ..sizes import late\n",
    "mine/deep/blocks.py": "BLOCK = 3\n",
    "mine/other.py": "",
    "beside.py": "",
    "autocomp/errors.py": "",
}
DEEP = {"mine.deep", "mine.deep.nets", "mine.deep.blocks"}
OWN = {"mine", "mine.task", "mine.sizes", "mine.late"} | DEEP


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("work", OWN | {"beside"}), ("site-packages", OWN)],
    ids=["working folder", "installed"],
)
def test_modules_are_followed_that_are_the_users(
    folder: str, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in FILES.items():
        (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path / folder)
    before = set(sys.modules)
    importlib.import_module("mine.task")
    found = own_sources("mine.task")
    for name in set(sys.modules) - before:
        del sys.modules[name]
    assert set(found) == expected
    assert found["mine.deep.blocks"] == b"BLOCK = 3\n"


def test_what_is_compiled_has_no_source() -> None:
    assert own_sources("sys") == {}
