"""A task of one's own: run only where it is trusted, and checked before it is used."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bars import Bars

from autocomp.errors import DataError, SpaceError, UserError
from autocomp.tasks.registry import build_task, restore_task, task_settings
from autocomp.trust import is_trusted, trusting

SECTION: dict[str, Any] = {"kind": "python", "factory": "bars:Bars", "dense": {"steps": 1}}


def no_task() -> object:
    return object()


def test_code_is_run_only_where_it_is_trusted(tmp_path: Path) -> None:
    for make in (lambda: build_task(SECTION), lambda: restore_task(SECTION, tmp_path, UserError)):
        with pytest.raises(UserError, match=r"task\.factory: must be trusted .* --trust"):
            make()
        with trusting(False), pytest.raises(UserError, match="must be trusted"):
            make()
        with trusting():
            assert isinstance(make(), Bars)
        assert not is_trusted()


def test_trust_is_widened_and_never_narrowed() -> None:
    with trusting(), trusting(False):
        assert is_trusted()
    assert not is_trusted()


def test_settings_are_arguments() -> None:
    with trusting():
        task = build_task({**SECTION, "settings": {"side": 6, "count": 10}})
    assert task.inputs("train", 0, 99).shape == (10, 1, 6, 6)


def test_a_module_is_found_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lying_here.py").write_text("from bars import Bars as task\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [one for one in __import__("sys").path if one])
    with trusting():
        assert isinstance(build_task({**SECTION, "factory": "lying_here:task"}), Bars)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_module:task", "No module named 'no_such_module'"),
        ("bars:Barz", "has no attribute 'Barz'"),
        (f"{__name__}:no_task", "lacks .*metric_names"),
    ],
)
def test_what_gives_no_task_says_why(factory: str, message: str) -> None:
    with trusting(), pytest.raises(UserError, match=rf"task\.factory: must .*{message}"):
        build_task({**SECTION, "factory": factory})


@pytest.mark.parametrize("factory", ["bars", "bars.Bars", "../bars:Bars", "bars:Bars()", ":x"])
def test_a_factory_is_a_name_and_nothing_else(factory: str) -> None:
    with pytest.raises(SpaceError, match=r"task\.factory: "):
        task_settings({**SECTION, "factory": factory})


def test_the_fingerprint_is_of_data_weights_and_source() -> None:
    class Changed(Bars):
        seed = 1

    prints = [Bars().fingerprint(), Bars(count=49).fingerprint(), Changed().fingerprint()]
    assert len(set(prints)) == 3
    assert Bars().fingerprint() == prints[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([1]), "must be a NumPy array"),
        (b"", "must be a NumPy array"),
        (np.array([{}]), "must be a NumPy array"),
        (np.zeros((1, 8, 7), np.float32), r"of shape \(1, 8, 8\), but got \(1, 8, 7\)"),
    ],
    ids=["pickle", "nothing", "objects", "shape"],
)
def test_a_file_is_an_array_and_runs_no_code(content: Any, message: str) -> None:
    if isinstance(content, np.ndarray):
        buffer = io.BytesIO()
        np.save(buffer, content)
        content = buffer.getvalue()
    with pytest.raises(DataError, match=message):
        Bars().read(content)


def test_images_cannot_be_smaller() -> None:
    with pytest.raises(UserError, match="are no images"):
        Bars().resized(16)


def test_inputs_without_targets_are_refused() -> None:
    class Uneven(Bars):
        def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
            images, upright = super().arrays(split)
            return images, upright[:-1]

    with pytest.raises(DataError, match=r"dev: must have a target for each .* 47 for 48"):
        Uneven().size("dev")
