"""Files that are written whole or not at all, and the folder where autocomp keeps its cache."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autocomp.errors import UserError


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path`; whoever reads it sees the old file or the new one, never half."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
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
    """Let `fill` write into a fresh folder beside `path`, then put that in place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        fill(temporary)
        temporary.chmod(0o755)
        if path.exists():  # deleting takes long enough to be killed in, and renaming does not
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
            path.replace(aside / path.name)
            temporary.replace(path)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def cache_dir() -> Path:
    """`$AUTOCOMP_CACHE`, else `~/.cache/autocomp`; made if it is missing."""
    named = os.environ.get("AUTOCOMP_CACHE")
    path = Path(named) if named else Path.home() / ".cache" / "autocomp"
    path.mkdir(parents=True, exist_ok=True)
    return path


def resolve_path(text: str, where: str, error: type[UserError]) -> Path:
    """The path a user wrote, with `~` and `${VARIABLES}` filled in; `error` names an unset one."""
    filled = os.path.expandvars(text)
    unset = re.search(r"\$\{?(\w+)", filled)
    if unset:
        raise error(f"{where}: the environment variable {unset[1]} must be set to use {text!r}")
    return Path(filled).expanduser()
