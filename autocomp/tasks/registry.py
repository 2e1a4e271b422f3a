"""The tasks there are: from the `task` section of a space file, or from a checkpoint's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from autocomp.decisions import Decision, validate
from autocomp.errors import SpaceError, UserError, unknown
from autocomp.tasks.base import Task
from autocomp.tasks.captioning import Captioning, CaptioningSettings
from autocomp.tasks.classification import Classification, ClassificationSettings
from autocomp.tasks.python import PythonSettings, build_python, made_of, restore_python


class TaskKind(NamedTuple):
    """Settings of a kind of task, and how a task is made from them.

    `restore(settings, directory)` makes the task a checkpoint was written for: it reads what
    `write_assets` wrote and needs neither the data nor any pretrained weights.
    """

    settings: type[Decision]
    build: Callable[[Any], Task]
    restore: Callable[[Any, Path], Task]


TASKS: dict[str, TaskKind] = {
    "captioning": TaskKind(CaptioningSettings, Captioning, Captioning.restore),
    "classification": TaskKind(ClassificationSettings, Classification, Classification.restore),
    "python": TaskKind(PythonSettings, build_python, restore_python),
}


def task_settings(
    section: Mapping[str, Any], where: str = "task", error: type[UserError] = SpaceError
) -> Any:
    """The settings a `task` section holds; `error` lists every mistake."""
    return validate(_kind(section, where, error).settings, dict(section), where, error)


def build_task(section: Mapping[str, Any]) -> Task:
    """The task a space file describes."""
    return _kind(section, "task", SpaceError).build(task_settings(section))


def fingerprint(task: Task, section: Mapping[str, Any]) -> str:
    """A name for everything a trained dense model depends on, but for how it is trained.

    The task's own; with one of the user's that is to be trained also that of the arguments and the
    source it was made with.
    """
    settings = task_settings(section)
    if not isinstance(settings, PythonSettings) or settings.dense.checkpoint is not None:
        return task.fingerprint()
    return hashlib.sha256(f"{task.fingerprint()} {made_of(settings)}".encode()).hexdigest()


def restore_task(section: Mapping[str, Any], directory: Path, error: type[UserError]) -> Task:
    """The task of the checkpoint in `directory`."""
    settings = task_settings(section, "config.json: task", error)
    return _kind(section, "config.json: task", error).restore(settings, directory)


def _kind(section: Mapping[str, Any], where: str, error: type[UserError]) -> TaskKind:
    kind = str(section.get("kind"))
    if kind not in TASKS:
        raise error(unknown(f"{where}.kind", kind, list(TASKS)))
    return TASKS[kind]
