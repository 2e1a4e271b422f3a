"""Files that are written whole or not at all, and the folder where autocomp keeps its cache."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autocomp.errors import UserError

UNFINISHED, ASIDE = ".tmp", ".old"
LEFTOVER = re.compile(rf"\..+\.[a-z0-9_]{{8}}({re.escape(UNFINISHED)}|{re.escape(ASIDE)})")
"""What our hidden files and folders are called while something is written."""


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path`; whoever reads it sees the old file or the new one, never half."""
    handle, temporary = tempfile.mkstemp(UNFINISHED, f".{path.name}.", path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        _sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON; NaN and infinity are refused, for JSON has neither."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a fresh folder beside `path`, then put that in place of `path`.

    No folder can be renamed onto another: an old one is first moved aside. A process that is killed
    in between leaves no `path`, but the old folder whole; `clear_leftovers` puts it back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, UNFINISHED)
    try:
        fill(temporary)
        temporary.chmod(0o755)
        _sync_all(temporary)
        if path.exists():
            aside = _beside(path, ASIDE)
            try:
                path.replace(aside / path.name)
                temporary.replace(path)
            finally:
                _settle(aside)
        else:
            temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def clear_leftovers(folder: Path) -> None:
    """Remove what killed writers left in `folder`; an old folder without a successor returns.

    Only where nobody writes: what is being written looks the same.
    """
    left = [path for path in folder.glob(".*") if LEFTOVER.fullmatch(path.name)]
    for path in left:
        if path.suffix == ASIDE:
            _settle(path)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return Path(tempfile.mkdtemp(suffix, f".{path.name}.", path.parent))


def _settle(aside: Path) -> None:
    """Give up what was moved aside, or put it back if nothing has taken its place."""
    for old in aside.iterdir():
        if not (aside.parent / old.name).exists():
            old.replace(aside.parent / old.name)
    # half deleted it must never come back
    shutil.rmtree(aside.replace(aside.with_suffix(UNFINISHED)), ignore_errors=True)


def _sync_all(folder: Path) -> None:
    """Have the disk hold all that lies in `folder` before anything points to it."""
    for path in folder.rglob("*"):
        if path.is_dir():
            _sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Have the disk hold which files are in `folder`, where the file system can do so."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def cache_dir() -> Path:
    """`$AUTOCOMP_CACHE`, else `~/.cache/autocomp`; made if it is missing."""
    named = os.environ.get("AUTOCOMP_CACHE")
    path = Path(named) if named else Path.home() / ".cache" / "autocomp"
    path.mkdir(parents=True, exist_ok=True)
    return path


def resolve_path(text: str, where: str, error: type[UserError]) -> Path:
    """The path a user wrote, with `~` and `${VARIABLES}` filled in.

    `error` names a variable that is not set, or a user without a home.
    """
    filled = os.path.expandvars(text)
    unset = re.search(r"\$\{?(\w+)", filled)
    if unset:
        raise error(f"{where}: the environment variable {unset[1]} must be set to use {text!r}")
    try:
        return Path(filled).expanduser()
    except RuntimeError as failure:
        raise error(f"{where}: must be a path, but got {text!r}: {failure}") from None
