"""A user's own task: made by a function of theirs, which is called only where they are trusted."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from autocomp.decisions import Decision
from autocomp.errors import UserError
from autocomp.tasks.base import Task
from autocomp.tasks.dense import DenseSettings
from autocomp.trust import is_trusted

Factory = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


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
    function = _imported(settings.factory)
    task = function(**settings.settings)
    lacking = [name for name in _members(Task) if not hasattr(task, name)]
    if lacking:
        raise UserError(
            f"task.factory: must give a task (autocomp.tasks.base.Task), but what "
            f"{settings.factory!r} gives lacks {', '.join(lacking)}"
        )
    made: Task = task
    return made


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
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as failure:
        raise UserError(
            f"task.factory: must be a function in a module that Python finds, but {factory!r}: "
            f"{failure}"
        ) from None
    return found


def _members(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_")]
