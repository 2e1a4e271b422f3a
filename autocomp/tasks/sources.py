"""The source that a user's task is made of: their module, and what it imports from beside it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")


def own_sources(module: str) -> dict[str, bytes]:
    """The source of a loaded module and of the modules that it imports, by name.

    Those are followed that lie beside it, or in its package where that is an installed one;
    libraries and autocomp are not.
    """
    file = getattr(sys.modules[module], "__file__", None)
    if file is None:
        return {}
    root = Path(file).parents[module.count(".") + (Path(file).stem == "__init__")]
    found: dict[str, bytes] = {}
    parts = module.split(".")
    waiting = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    while waiting:
        name = waiting.pop()
        path = _file(root, name)
        if name in found or path is None or not _is_own(name, module, root):
            continue
        found[name] = path.read_bytes()
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        try:
            tree = ast.parse(found[name])
        except SyntaxError:  # it is there, but Python did not import it
            continue
        waiting += _imported(tree, package)
    return dict(sorted(found.items()))


def _file(root: Path, name: str) -> Path | None:
    stem = root.joinpath(*name.split("."))
    files = (stem / "__init__.py", stem.parent / f"{stem.name}.py")
    return next((one for one in files if one.is_file()), None)


def _is_own(name: str, module: str, root: Path) -> bool:
    top = name.split(".")[0]
    return top != "autocomp" and (root.name not in INSTALLED or top == module.split(".")[0])


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """What a module in `package` imports, each name with the packages it lies in."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) + 1 - node.level] if node.level else []
            # what is imported from a package may be a module of it
            path = [*above, node.module]
            names += [".".join(filter(None, [*path, alias.name])) for alias in node.names]
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))
