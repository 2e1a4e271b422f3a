"""Tasks by kind, from a space file's section or a checkpoint's."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import SECTION, tiny_task

from autocomp.errors import CheckpointError, SpaceError
from autocomp.tasks.captioning import Captioning, CaptioningSettings
from autocomp.tasks.registry import TASKS, build_task, restore_task, task_settings

pytestmark = pytest.mark.usefixtures("tiny")


def test_a_section_makes_a_task() -> None:
    task = build_task(SECTION)
    assert isinstance(task, Captioning)
    assert task.settings == task_settings(SECTION)


def test_every_kind_is_the_kind_of_its_settings() -> None:
    for kind, made in TASKS.items():
        assert made.settings.model_fields["kind"].default == kind
    assert TASKS["captioning"].settings is CaptioningSettings


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({}, "task.kind: must be one of captioning, classification, python, but got 'None'"),
        (
            {"kind": "caption"},
            "task.kind: must be one of captioning, classification, python, but got 'caption'; "
            "did you mean 'captioning'",
        ),
        ({**SECTION, "min_count": 0}, "task.min_count: must be greater than or equal to 1"),
    ],
    ids=["no kind", "typing error", "a mistake inside"],
)
def test_mistakes_name_their_place(section: dict[str, object], line: str) -> None:
    with pytest.raises(SpaceError) as caught:
        build_task(section)
    assert str(caught.value).startswith(line)


def test_a_checkpoint_restores_its_task(tmp_path: Path) -> None:
    tiny_task().write_assets(tmp_path, threads=1)
    assert isinstance(restore_task(SECTION, tmp_path, CheckpointError), Captioning)
    with pytest.raises(CheckpointError, match=r"config\.json: task\.kind: must be one of"):
        restore_task({"kind": "captions"}, tmp_path, CheckpointError)
