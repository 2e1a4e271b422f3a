from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from made_study import FAILED, STOPPED, TRIALS, make_study

from autocomp.errors import StudyError
from autocomp.report.digest import digest
from autocomp.report.trials import kind
from autocomp.results import CONTROL_TRIAL, DENSE_TRIAL
from autocomp.study.front import is_feasible
from autocomp.study.study import Study


def test_is_plain_json(whole: Path):
    content = digest(Study.load(whole))
    assert json.loads(json.dumps(content, allow_nan=False))["name"] == "whole"
    missing = [
        name for name, one in content.items() if isinstance(one, dict) and one.get("missing")
    ]
    assert missing == []


def test_a_task_of_one_s_own_is_exported_with_trust(whole: Path, monkeypatch: pytest.MonkeyPatch):
    study = Study.load(whole)
    assert digest(study)["export"] == f"autocomp export {whole}"
    monkeypatch.setitem(study.space.task, "kind", "python")
    assert digest(study)["export"] == f"autocomp --trust export {whole}"


def test_an_older_study_says_what_it_lacks(bare: Path):
    content = digest(Study.load(bare))
    assert "trials/00000/tensors.json" in content["layers"]["missing"]
    assert "trials/00000/predictions.json" in content["gallery"]["missing"]
    assert len(content["trials"]) == TRIALS


def test_a_study_without_its_journal_has_no_hours(bare: Path, tmp_path: Path):
    copied = shutil.copytree(bare, tmp_path / "copied")
    (copied / "journal.log").unlink()
    content = digest(Study.load(copied))
    assert content["cost"]["hours"] is None
    assert {one["hours"] for one in content["progress"]} == {None}
    assert "there are 0" in content["importance"]["missing"]


def test_a_study_of_dense_alone_has_a_report(tmp_path: Path):
    content = digest(Study.load(make_study(tmp_path / "begun", trials=1)))
    assert [one["kind"] for one in content["trials"]] == ["dense"]
    assert content["headline"]["shares"][0]["choices"][0]["trial"] in (None, DENSE_TRIAL)


def test_every_trial_has_its_kind(whole: Path):
    study = Study.load(whole)
    kinds = {number: kind(result, study.front()) for number, result in study.results.items()}
    assert kinds[DENSE_TRIAL] == "dense"
    assert kinds[CONTROL_TRIAL] == "control (dense, retrained)"
    assert (kinds[STOPPED], kinds[FAILED]) == ("stopped early", "failed")
    front = {one.trial for one in study.front().members} - {DENSE_TRIAL, CONTROL_TRIAL}
    assert {number for number, one in kinds.items() if one == "front"} == front
    for number, one in kinds.items():
        if one in ("front", "other trials", "out of bounds"):
            metrics = study.results[number].metrics
            good = is_feasible(metrics, study.space.objectives, study.front().reference)
            assert good == (one != "out of bounds")
    assert set(kinds.values()) >= {"front", "other trials", "out of bounds"}


def test_intervals_are_those_of_the_front(whole: Path):
    study = Study.load(whole)
    found = {one["number"]: one["intervals"] for one in digest(study)["trials"]}
    shown = {one.trial for one in study.front().members} | {DENSE_TRIAL, CONTROL_TRIAL}
    assert {number for number, one in found.items() if one} == shown
    assert set(found[DENSE_TRIAL]["cider"]) == {"control"}
    low, high = found[CONTROL_TRIAL]["cider"]["dense"]
    assert low < high


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("trials/00003/tensors.json", "[]"),
        ("trials/00003/tensors.json", '{"tensors": [{"name": "a"}]}'),
        ("trials/00003/predictions.json", '{"split": "dev"}'),
        (
            "trials/00003/predictions.json",
            '{"split": "dev", "names": ["a"], "predictions": [], "scores": {}}',
        ),
    ],
    ids=["a list", "no shape", "no names", "too few"],
)
def test_a_damaged_file_is_named(whole: Path, tmp_path: Path, file: str, content: str):
    copied = shutil.copytree(whole, tmp_path / "copied")
    (copied / file).write_text(content)
    with pytest.raises(StudyError, match=Path(file).name):
        digest(Study.load(copied))
