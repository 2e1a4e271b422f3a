from __future__ import annotations

import stat
from pathlib import Path

import pytest

from autocomp import files


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
