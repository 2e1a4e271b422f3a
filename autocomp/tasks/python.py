"""A user's own task: made by a function of theirs, which is called only where they are trusted."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from autocomp.decisions import Decision
from autocomp.errors import UserError
from autocomp.tasks.base import Task
from autocomp.tasks.dense import DenseSettings
from autocomp.tasks.sources import own_sources
from autocomp.trust import is_trusted

ABSTRACT = "Can't instantiate abstract class"
"""How Python's message begins about a class that leaves out what it must say."""
FACTORY = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


def _check_factory(written: str) -> str:
    if re.fullmatch(FACTORY, written):
        return written
    meant = ":".join(written.replace(":", ".").rsplit(".", 1))
    hint = f"; did you mean {meant!r}?" if re.fullmatch(FACTORY, meant) else ""
    raise ValueError(f"must be package.module:function, but got {written!r}{hint}")


Factory = Annotated[
    str, AfterValidator(_check_factory), Field(json_schema_extra={"pattern": FACTORY})
]


class PythonSettings(Decision):
    """A task of your own: `factory`, `package.module:function`, gives a `Task`.

    The function is called with `settings` as keyword arguments. It is imported from the working
    folder or wherever Python finds it, and only with `--trust` (in the library `trust=True`).
    """

    kind: Literal["python"] = "python"
    factory: Factory
    settings: dict[str, Any] = {}
    dense: DenseSettings


def build_python(settings: PythonSettings) -> Task:
    """The task that the user's function gives; `UserError` if it may not or cannot be called."""
    task = _called(_imported(settings.factory), settings)
    lacking = [name for name in _members(Task) if not hasattr(task, name)]
    if lacking:
        raise UserError(
            f"task.factory: must give a task (autocomp.tasks.base.Task), but what "
            f"{settings.factory!r} gives lacks {', '.join(lacking)}"
        )
    made: Task = task
    return made


def made_of(settings: PythonSettings) -> str:
    """A name for what a task was made with: its factory, the arguments, the source of both."""
    arguments = settings.model_dump(mode="json")["settings"]
    made = [settings.factory, arguments]
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode())
    for name, source in own_sources(settings.factory.partition(":")[0]).items():
        digest.update(f"\n{name}\n".encode() + source)
    return digest.hexdigest()


def restore_python(settings: PythonSettings, directory: Path) -> Task:
    """The task of a checkpoint, which stores no more of it than the name of its factory."""
    task = build_python(settings)
    task.check_assets(directory)
    return task


def _imported(factory: str) -> Callable[..., Any]:
    if not is_trusted():
        raise UserError(
            f"task.factory: must be trusted to be run, but {factory!r} is not: it is code, which "
            "can do whatever you can; --trust (in Python: trust=True) runs it"
        )
    module, _, name = factory.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    rule = f"task.factory: must be a function in a module that Python can import, but {factory!r}"
    try:
        loaded = importlib.import_module(module)
    except (ImportError, SyntaxError) as failure:
        raise UserError(f"{rule}: {failure}") from None
    try:
        found: Callable[..., Any] = getattr(loaded, name)
        inspect.signature(found)
    except (AttributeError, TypeError, ValueError) as failure:
        raise UserError(f"{rule}: {failure}") from None
    return found


def _called(function: Callable[..., Any], settings: PythonSettings) -> Any:
    """What the function gives; other mistakes inside it keep their traceback, for it is theirs."""
    signature = inspect.signature(function)
    try:
        signature.bind(**settings.settings)
    except TypeError as failure:
        known = ", ".join(signature.parameters) or "none"
        raise UserError(
            f"task.settings: must be the arguments of {settings.factory!r} ({known}), but {failure}"
        ) from None
    try:
        return function(**settings.settings)
    except TypeError as failure:
        if not str(failure).startswith(ABSTRACT):
            raise
        raise UserError(
            f"task.factory: must give a task, but {settings.factory!r}: {failure}"
        ) from None


def _members(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_")]
