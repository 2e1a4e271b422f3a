from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from autocomp import files
from autocomp.errors import DataError

KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from autocomp import files

moment = sys.argv[2]
renames = 0
rename, remove = Path.replace, shutil.rmtree

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def counted(path, target):
    global renames
    renames += 1
    kill() if moment == f"before rename {renames}" else None
    return rename(path, target)

Path.replace = counted
if moment == "deleting the old":
    shutil.rmtree = kill

def fill(folder):
    (folder / "new").write_text("half")
    kill() if moment == "filling" else None

files.write_folder(Path(sys.argv[1]) / "checkpoint", fill)
"""


def test_text_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    files.write_text(path, "naïve ☃")
    assert path.read_text(encoding="utf-8") == "naïve ☃"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_json_refuses_what_json_does_not_have(tmp_path: Path, number: float) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(tmp_path / "a.json", {"cider": number})
    assert not list(tmp_path.iterdir())


def _fill(content: str):  # type: ignore[no-untyped-def]
    def fill(folder: Path) -> None:
        (folder / content).write_text(content)

    return fill


def test_a_folder_replaces_the_one_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "checkpoint"
    files.write_folder(path, _fill("old"))
    files.write_folder(path, _fill("new"))
    assert [one.name for one in path.iterdir()] == ["new"]
    assert [one.name for one in path.parent.iterdir()] == ["checkpoint"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_a_failed_fill_leaves_the_old_folder_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    files.write_folder(path, _fill("old"))

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        files.write_folder(path, fail)
    assert [one.name for one in path.iterdir()] == ["old"]
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("moment", "left", "survivor"),
    [
        ("filling", ["checkpoint"], "old"),
        ("before rename 1", ["checkpoint"], "old"),
        ("before rename 2", [], "old"),
        ("deleting the old", ["checkpoint"], "new"),
    ],
)
def test_a_kill_costs_no_folder(
    tmp_path: Path, moment: str, left: list[str], survivor: str
) -> None:
    files.write_folder(tmp_path / "checkpoint", _fill("old"))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [one.name for one in tmp_path.glob("[!.]*")] == left
    assert list(tmp_path.glob(".checkpoint.*"))
    files.clear_leftovers(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoint"]
    assert [one.name for one in (tmp_path / "checkpoint").iterdir()] == [survivor]


def test_a_replacement_that_fails_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    files.write_folder(path, _fill("old"))
    rename = Path.replace

    def refuse(one: Path, target: Path) -> Path:
        if one.suffix == files.UNFINISHED:
            raise OSError(5, "Input/output error")
        return rename(one, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Input/output"):
        files.write_folder(path, _fill("new"))
    assert [one.name for one in path.iterdir()] == ["old"]
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoint"]


def test_only_our_leftovers_are_cleared(tmp_path: Path) -> None:
    others = {".gitignore", ".notes.old", ".space.yaml.swp", "a.tmp", ".git"}
    for name in (*others, ".front.json.ab12_xyz.tmp"):
        (tmp_path / name).write_text("")
    files.clear_leftovers(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == others


def test_everything_written_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    sync = os.fsync

    def note(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        sync(handle)

    def fill(folder: Path) -> None:
        (folder / "below").mkdir()
        (folder / "below" / "weights").write_text("weights")

    monkeypatch.setattr(os, "fsync", note)
    path = tmp_path / "checkpoint"
    files.write_folder(path, fill)
    files.write_text(tmp_path / "a.txt", "text")
    written = [tmp_path, *tmp_path.rglob("*")]
    assert len(written) == 5
    assert {one.stat().st_ino for one in written} <= synced


def test_a_user_without_a_home_is_named() -> None:
    with pytest.raises(DataError, match=r"root: must be a path, but got '~nobody-here/x'"):
        files.resolve_path("~nobody-here/x", "root", DataError)


def test_the_cache_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOCOMP_CACHE", str(tmp_path / "cache"))
    assert files.cache_dir() == tmp_path / "cache"
    assert files.cache_dir().is_dir()


def test_the_cache_folder_is_in_the_home_folder_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUTOCOMP_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_dir() == tmp_path / ".cache" / "autocomp"
