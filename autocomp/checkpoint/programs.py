"""The program in a checkpoint that runs it without autocomp."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autocomp.deploy import caption, classify
from autocomp.deploy.program import program

PROGRAMS: dict[str, Path] = {
    "captioning": Path(caption.__file__),
    "classification": Path(classify.__file__),
}
"""The module each is made of, by the kind of task; a user's own task has none."""


def program_of(section: Mapping[str, Any]) -> tuple[str, bytes] | None:
    """The name and content of the program for the checkpoints of a task, if there is one."""
    source = PROGRAMS.get(str(section.get("kind")))
    return None if source is None else (source.name, program(source))
