from __future__ import annotations

import json
import logging
import shutil

import pytest

from autocomp.checkpoint.folder import open_checkpoint
from autocomp.errors import CheckpointError, StudyError
from autocomp.ship.export import export
from autocomp.study.study import Study


@pytest.fixture
def study(tiny_study, tmp_path):
    return shutil.copytree(tiny_study, tmp_path / "study")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edit_result(study, trial, **changes):
    path = study / "trials" / f"{trial:05d}" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_kept_checkpoint_is_copied_whole(tiny_study, tmp_path):
    out = export(tiny_study, tmp_path / "deep" / "out", trial=0)
    assert out == tmp_path / "deep" / "out"
    assert contents(out) == contents(tiny_study / "trials" / "00000" / "checkpoint")
    assert open_checkpoint(out).metrics
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_the_best_of_the_front_is_exported(tiny_study, tmp_path):
    front = json.loads((tiny_study / "front.json").read_text())["front"]
    smallest = min(front, key=lambda one: one["metrics"]["size_mb"])
    out = export(tiny_study, str(tmp_path / "out"), best="min size_mb")
    assert open_checkpoint(out).policy.id == smallest["policy_id"]


def test_a_checkpoint_that_was_not_kept_is_made_again(study, tmp_path, tiny, caplog):
    kept = study / "trials" / "00003" / "checkpoint"
    before = contents(kept)
    shutil.rmtree(kept)
    with caplog.at_level(logging.WARNING):
        out = export(study, tmp_path / "out", trial=3)
    assert "trial 3 kept no checkpoint" in caplog.text
    assert "cider: " in caplog.text
    after = contents(out)
    measured = {"metrics.json", "README.md", "config.json"}
    assert {n: c for n, c in after.items() if n not in measured} == {
        n: c for n, c in before.items() if n not in measured
    }
    old, new = (json.loads(one["metrics.json"]) for one in (before, after))
    assert new["cider"] == old["cider"]
    assert len(after["config.json"]) == len(before["config.json"])
    old, new = (json.loads(one["config.json"]) for one in (before, after))
    assert {name for name in old if old[name] != new[name]} == {"files", "checksum"}
    hashed = old["files"].items() ^ new["files"].items()
    assert {name for name, _ in hashed} == {"metrics.json", "README.md"}


def test_a_damaged_checkpoint_is_not_exported(study, tmp_path):
    with (study / "trials" / "00000" / "checkpoint" / "encoder.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match=r"encoder\.onnx"):
        export(study, tmp_path / "out", trial=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study"]


def test_an_existing_checkpoint_is_replaced_only_by_force(tiny_study, tmp_path):
    out = export(tiny_study, tmp_path / "out", trial=0)
    with pytest.raises(StudyError, match="must not exist yet"):
        export(tiny_study, out, trial=2)
    assert open_checkpoint(out).policy.steps == ()
    export(tiny_study, out, trial=2, force=True)
    assert open_checkpoint(out).policy.steps


@pytest.mark.parametrize("kind", ["folder", "another's model", "file"])
def test_force_replaces_nothing_but_a_checkpoint(tiny_study, tmp_path, kind):
    out = tmp_path / "precious"
    if kind == "folder":
        out.mkdir()
        (out / "thesis.tex").touch()
    elif kind == "another's model":
        out.mkdir()
        (out / "config.json").write_text('{"architectures": ["BertModel"]}')
    else:
        out.touch()
    with pytest.raises(StudyError, match="something else"):
        export(tiny_study, out, trial=0, force=True)
    assert out.exists()


def test_an_out_that_cannot_be_written_is_named(tiny_study, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="can be written") as caught:
        export(tiny_study, tmp_path / "file" / "out", trial=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("trial", "changes", "message"),
    [
        (99, None, "trial 99 has no result"),
        (3, {"status": "failed", "reason": "OSError: disk"}, "trial 3 failed: OSError: disk"),
        (3, {"status": "stopped", "reason": "too slow"}, "trial 3 was stopped: too slow"),
        (3, {"status": "failed"}, "trial 3 failed: no reason is known"),
    ],
    ids=["unknown", "failed", "stopped", "no reason"],
)
def test_a_trial_without_a_result_lists_those_of_the_front(
    study, tmp_path, trial, changes, message
):
    if changes:
        edit_result(study, trial, **changes)
    with pytest.raises(StudyError, match=message) as caught:
        export(study, tmp_path / "out", trial=trial)
    numbers = sorted(member.trial for member in Study.load(study).front().members)
    assert f"those of the front ({', '.join(map(str, numbers))})" in str(caught.value)


@pytest.mark.parametrize("given", [{}, {"trial": 0, "best": "min size_mb"}], ids=["none", "both"])
def test_one_way_to_choose_must_be_given(tiny_study, tmp_path, given):
    with pytest.raises(StudyError, match="a trial or what is best"):
        export(tiny_study, tmp_path / "out", **given)


def test_a_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"space\.yaml"):
        export(tmp_path, tmp_path / "out", trial=0)


def test_a_study_without_its_weights_says_so(tiny_study, tmp_path):
    study = tmp_path / "study"
    shutil.copytree(tiny_study, study)
    shutil.rmtree(study / "dense")
    shutil.rmtree(study / "trials" / "00002" / "checkpoint", ignore_errors=True)
    with pytest.raises(StudyError, match="this study was kept without its weights"):
        export(study, tmp_path / "out", trial=2)
