"""The front's members stand beside dense and control, image by image."""

from __future__ import annotations

import json
import os

import pytest
from search_toys import open_toy, predicting_run, toy_metrics, toy_predictions

from autocomp.predictions import PREDICTIONS
from autocomp.results import TrialResult
from autocomp.study.loop import search_loop
from autocomp.study.runners import InProcessRunner
from autocomp.study.store import StudyStore, trial_folder
from autocomp.study.study import Study


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """No test here cuts the power, and waiting for the disk takes most of their time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def search(directory, trials, run):
    study = open_toy(directory, sampler="random", trials=trials)
    search_loop(study, InProcessRunner(run, directory), trials)
    return study


def test_the_front_compares_its_members_with_dense_and_control(tmp_path):
    study = search(tmp_path, 12, predicting_run(tmp_path))
    written = json.loads((tmp_path / "front.json").read_text())
    assert Study.load(tmp_path).front().intervals == study.front().intervals
    assert sorted(written["control"]["intervals"]["cider"]) == ["dense"]
    for one in written["front"]:
        intervals = one["intervals"]["cider"]
        own = {0: {"dense"}, 1: {"control"}}.get(one["trial"], set())
        assert intervals.keys() == {"dense", "control"} - own
        for name, (low, high) in intervals.items():
            difference = one["metrics"]["cider"] - written[name]["metrics"]["cider"]
            assert low - 1e-6 <= difference <= high + 1e-6


def test_a_trial_is_compared_once_however_long_it_stays_on_the_front(tmp_path, monkeypatch):
    read_predictions, asked = StudyStore.read_predictions, []

    def counting(store, number):
        asked.append(number)
        return read_predictions(store, number)

    monkeypatch.setattr(StudyStore, "read_predictions", counting)
    study = search(tmp_path, 25, predicting_run(tmp_path))
    assert len(asked) == len(set(asked))
    assert set(asked) >= {0, 1, *(one.trial for one in study.front().members)}


def test_a_study_without_predictions_has_no_intervals(tmp_path):
    search(tmp_path, 6, predicting_run(tmp_path))
    for path in tmp_path.glob("trials/*/predictions.json"):
        path.unlink()
    study = Study.load(tmp_path)
    assert set(study.front().intervals) == {0, 1, *(one.trial for one in study.front().members)}
    assert not any(study.front().intervals.values())


def test_predictions_of_other_images_are_not_compared(tmp_path, caplog):
    def run(number, policy):
        images = 40 if number == 2 else 50
        toy_predictions(policy, images).write(trial_folder(tmp_path, number) / PREDICTIONS)
        return TrialResult(
            number=number,
            policy_id=policy.id,
            status="complete",
            metrics=toy_metrics(policy) | {"size_mb": 10.0 - number},
        )

    intervals = search(tmp_path, 4, run).front().intervals
    assert intervals[2] == {}
    assert intervals[3]["cider"].keys() == {"dense", "control"}
    assert "trial 2: has no interval, for it predicted other examples than trial 0" in caplog.text
