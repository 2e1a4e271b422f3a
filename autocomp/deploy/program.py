"""Makes each program that runs a checkpoint without autocomp one file, which needs no other."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

SHARED = "autocomp.deploy.photos"


@cache
def program(path: Path) -> bytes:
    """The source of a module of this folder, with that of `photos` where it imports from it."""
    source = path.read_text(encoding="utf-8")
    (wanted,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom) and node.module == SHARED
    )
    assert wanted.end_lineno is not None
    lines = source.splitlines()
    whole = [*lines[: wanted.lineno - 1], *_shared(), *lines[wanted.end_lineno :]]
    return ("\n".join(whole) + "\n").encode()


def _shared() -> list[str]:
    """The lines of `photos` after its docstring and what every file begins with."""
    source = (Path(__file__).parent / "photos.py").read_text(encoding="utf-8")
    first = ast.parse(source).body[2]
    return source.splitlines()[first.lineno - 1 :]
