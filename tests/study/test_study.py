from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from search_toys import (
    FEW_STEPS,
    OBJECTIVES,
    STEPS,
    open_toy,
    predicting_run,
    toy_bound,
    toy_metrics,
    toy_run,
    toy_space,
)

from autocomp import files
from autocomp.errors import StudyError, TrialStopped
from autocomp.policy import Policy
from autocomp.provenance import machine
from autocomp.results import TrialResult
from autocomp.study.front import is_feasible
from autocomp.study.loop import search_loop
from autocomp.study.runners import InProcessRunner, ReplayRunner
from autocomp.study.study import Study


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """No test here cuts the power, and waiting for the disk takes most of their time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


HALF = {**OBJECTIVES, "size_mb": {"direction": "minimize", "at_most": "0.5*dense"}}


def search(directory, trials, run=toy_run, on_event=lambda event: None, **space):
    study = open_toy(directory, **{"sampler": "random", "trials": trials, **space})
    search_loop(study, InProcessRunner(run, directory), trials, on_event)
    return study


def optuna_trials(directory):
    storage = JournalStorage(JournalFileBackend(str(directory / "journal.log")))
    return optuna.load_study(study_name="autocomp", storage=storage).get_trials()


def brute_force_front(results, policies, objectives):
    """Numbers of the feasible complete results that no other such result dominates."""
    dense = results[0].metrics
    signs = {"cider": -1, "size_mb": 1, "latency_ms": 1}
    losses = {
        number: [sign * one.metrics[metric] for metric, sign in signs.items()]
        for number, one in results.items()
        if one.status == "complete" and is_feasible(one.metrics, objectives, dense)
    }
    return [
        number
        for number, loss in losses.items()
        if not any(
            other != loss and all(a <= b for a, b in zip(other, loss, strict=True))
            for other in losses.values()
        )
    ]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
@pytest.mark.parametrize("objectives", [OBJECTIVES, HALF], ids=["free", "bounded"])
def test_the_front_equals_brute_force(tmp_path, sampler, objectives):
    study = search(tmp_path, 30, sampler=sampler, objectives=objectives)
    assert sorted(study.results) == list(range(30))
    expected = brute_force_front(study.results, study.policies, study.space.objectives)
    written = json.loads((tmp_path / "front.json").read_text())
    assert [one["trial"] for one in written["front"]] == expected
    assert written["dense"]["metrics"] == toy_metrics(Policy())
    assert written["hypervolume"] == study.front().hypervolume
    if objectives is HALF:
        assert all(one["metrics"]["size_mb"] <= 5.0 for one in written["front"])


def test_no_trial_repeats_what_the_dense_model_or_the_control_did(tmp_path):
    study = search(tmp_path, 12, steps=[{**STEPS[0], "ratio": {"choice": [0.0, 0.5]}}, *STEPS[1:]])
    bound = toy_bound(study.space)
    essences = [bound.essence(policy) for policy in study.policies.values()]
    assert len(set(essences)) == len(essences) == 12


def test_numbers_policies_and_optuna_agree(tmp_path):
    study = search(tmp_path, 20)
    assert study.policies[0] == Policy()
    assert [step.kind for step in study.policies[1].steps] == ["retrain"]
    assert len({policy.id for policy in study.policies.values()}) == 20
    told = {
        one.user_attrs["trial"]: one for one in optuna_trials(tmp_path) if "trial" in one.user_attrs
    }
    assert sorted(told) == list(range(20))
    for number, one in told.items():
        assert one.state is TrialState.COMPLETE
        assert one.values == [study.results[number].metrics[metric] for metric in OBJECTIVES]
    assert told[0].params == told[1].params == {}
    ladder = [
        one.system_attrs["fixed_params"] for one in told.values() if one.number in range(2, 10)
    ]
    assert all(told[number].params == values for number, values in enumerate(ladder, start=2))


START = {
    "steps.0.prune_width.ratio[decoder.layers.0]": 0.25,
    "steps.0.prune_width.ratio[decoder.layers.1]": 0.125,
    "steps.0.prune_width.criterion": "l2",
    "steps.1.retrain.steps": 10,
    "steps.1.retrain.lr": 1e-3,
    "steps.2.quantize.bits": 4,
}


@pytest.mark.parametrize("before", [0, 6], ids=["new", "resumed"])
def test_policies_to_start_with_come_first(tmp_path, before):
    if before:
        search(tmp_path, before)
    space = toy_space(sampler="random", trials=12)
    bound = toy_bound(space)
    study = Study.open(tmp_path, space, bound, first=[START, START])
    search_loop(study, InProcessRunner(toy_run, tmp_path), 12)
    given = bound.policy(START)
    number = max(before, 2)
    assert study.policies[number] == given
    assert study.trial_of(given) == number
    assert len({policy.id for policy in study.policies.values()}) == 12
    (told,) = [one for one in optuna_trials(tmp_path) if one.user_attrs.get("trial") == number]
    assert told.params == START


def test_the_search_is_the_same_for_the_same_seed(tmp_path):
    runs = [search(tmp_path / str(one), 25, sampler="tpe", seed=3).policies for one in range(2)]
    assert runs[0] == runs[1]


def test_results_survive_in_the_folder(tmp_path):
    study = search(tmp_path, 8)
    loaded = Study.load(tmp_path)
    assert (loaded.results, loaded.policies) == (study.results, study.policies)
    assert loaded.front() == study.front()
    header = json.loads((tmp_path / "study.json").read_text())
    assert header["dense"]["metrics"] == toy_metrics(Policy())
    assert header["sessions"][0]["overhead_s"] > 0


def test_a_finished_study_runs_nothing_more_and_can_be_extended(tmp_path):
    search(tmp_path, 8)
    ran = []

    def noting(number, policy):
        ran.append(number)
        return toy_run(number, policy)

    search(tmp_path, 8, noting)
    assert ran == []
    study = search(tmp_path, 12, noting)
    assert ran == [8, 9, 10, 11]
    assert len({policy.id for policy in study.policies.values()}) == 12


class Crash(BaseException):
    """Stands for kill -9: nobody catches it."""


class Disk:
    """Counts durable writes and refuses all from number `fatal` on; a line of the journal half."""

    def __init__(self, monkeypatch, fatal):
        self.writes, self.fatal = 0, fatal
        write_bytes, append_logs = files.write_bytes, JournalFileBackend.append_logs

        def counted_write(path, content):
            self._count()
            write_bytes(path, content)

        def counted_append(backend, logs):
            if self.writes == self.fatal:
                with Path(backend._file_path).open("a") as journal:
                    journal.write(json.dumps(logs[0])[:20])
            self._count()
            append_logs(backend, logs)

        monkeypatch.setattr(files, "write_bytes", counted_write)
        monkeypatch.setattr(JournalFileBackend, "append_logs", counted_append)

    def _count(self):
        if self.writes >= self.fatal:
            raise Crash
        self.writes += 1


def crashed(directory, trials, run, fatal):
    """Search until write number `fatal`; True if the search came to its end before that."""
    with pytest.MonkeyPatch.context() as patch:
        Disk(patch, fatal)
        try:
            search(directory, trials, run)
        except Crash:
            return False
    return True


def test_a_crash_before_any_write_loses_nothing_and_runs_nothing_twice(tmp_path):
    trials, fatal = 4, 0  # dense, control, a rung of the ladder and a draw
    while True:
        directory = tmp_path / str(fatal)
        ran: list[tuple[int, str]] = []

        def noting(number, policy, ran=ran, directory=directory):
            ran.append((number, policy.id))
            return predicting_run(directory)(number, policy)

        if crashed(directory, trials, noting, fatal):
            break
        kept = {int(path.parent.name) for path in directory.glob("trials/*/result.json")}
        before = len(ran)
        assert before - len(kept) <= 1
        study = search(directory, trials, noting)
        assert sorted(study.results) == list(range(trials))
        assert len(list(directory.glob("trials/*/predictions.json"))) == trials
        assert not kept & {number for number, _ in ran[before:]}
        assert len(set(ran)) == trials  # a number that runs again has the same policy
        assert len({policy for _, policy in ran}) == trials
        told = [one for one in optuna_trials(directory) if "trial" in one.user_attrs]
        assert [one.state for one in told] == [TrialState.COMPLETE] * trials
        assert all(one.state is not TrialState.RUNNING for one in optuna_trials(directory))
        fatal += 1
    assert fatal > 40


def test_a_trial_in_flight_keeps_its_number_and_policy(tmp_path):
    study = open_toy(tmp_path, trials=6)
    study.record(toy_run(*study.next_trial()))
    in_flight = [study.next_trial() for _ in range(3)]
    study.close()
    resumed = open_toy(tmp_path, trials=6)
    assert [resumed.next_trial() for _ in range(3)] == in_flight
    assert resumed.next_trial()[0] == 4
    resumed.close()


def test_nothing_follows_the_dense_model_until_it_is_known(tmp_path):
    study = open_toy(tmp_path)
    dense = study.next_trial()
    assert dense == (0, Policy())
    assert study.next_trial() is None
    study.record(toy_run(*dense))
    assert study.next_trial()[0] == 1
    study.close()


@pytest.mark.parametrize(
    ("failure", "said"),
    [(RuntimeError("no data"), "failed: RuntimeError: no data"), (TrialStopped("NaN"), "NaN")],
    ids=["failed", "stopped"],
)
def test_a_failing_dense_model_ends_the_search_and_is_tried_again(tmp_path, failure, said):
    def broken(number, policy):
        raise failure

    with pytest.raises(StudyError, match=said):
        search(tmp_path, 4, broken)
    assert sorted(search(tmp_path, 4).results) == [0, 1, 2, 3]


def test_a_complete_result_needs_every_objective(tmp_path):
    def partial(number, policy):
        metrics = {"size_mb": 1.0} if number == 3 else toy_metrics(policy)
        return TrialResult(number=number, policy_id=policy.id, status="complete", metrics=metrics)

    study = search(tmp_path, 5, partial)
    assert study.results[3].status == "failed"
    assert study.results[3].reason.endswith("must have every objective, but lack cider, latency_ms")
    assert 3 not in [one.trial for one in study.front().members]


@pytest.mark.parametrize("metric", ["cider", "bleu_1"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_not_finite_fails_its_trial_alone(tmp_path, metric, value):
    def strange(number, policy):
        metrics = toy_metrics(policy) | ({metric: value} if number == 3 else {})
        return TrialResult(number=number, policy_id=policy.id, status="complete", metrics=metrics)

    study = search(tmp_path, 5, strange)
    assert study.results[3].status == "failed"
    assert study.results[3].reason == f"metrics: must be finite, but {metric} are not"
    assert metric not in study.results[3].metrics
    assert Study.load(tmp_path).results == study.results


def test_the_control_may_bring_back_a_trial_that_was_beaten(tmp_path):
    """Bounds relative to dense move when the control is better than it."""
    found = {
        0: {"cider": 1.0, "size_mb": 10.0, "bleu_4": 0.5},
        1: {"cider": 1.0, "size_mb": 10.0, "bleu_4": 1.0},
        2: {"cider": 0.8, "size_mb": 5.0, "bleu_4": 0.95},
        3: {"cider": 0.9, "size_mb": 4.0, "bleu_4": 0.5},
    }
    objectives = {
        "cider": "maximize",
        "size_mb": "minimize",
        "bleu_4": {"at_least": "0.9*dense"},
    }
    study = open_toy(tmp_path, sampler="random", trials=4, objectives=objectives)
    given = {}

    def finish(number):
        policy = given[number]
        study.record(
            TrialResult(
                number=number, policy_id=policy.id, status="complete", metrics=found[number]
            )
        )

    given |= [study.next_trial()]
    finish(0)
    given |= [study.next_trial() for _ in range(3)]
    folders = [tmp_path / "trials" / f"{number:05}" / "checkpoint" for number in range(4)]
    for folder in folders[2:]:
        folder.mkdir()
    finish(3)
    finish(2)
    assert [one.trial for one in study.front().members] == [0, 3]
    finish(1)
    study.close()
    assert [one.trial for one in study.front().members] == [1, 2]
    assert Study.load(tmp_path).front().members == study.front().members
    assert folders[2].exists()
    assert not folders[3].exists()


def test_a_trial_whose_process_told_nothing_has_the_studys_seed(tmp_path):
    def broken(number, policy):
        if number == 2:
            raise RuntimeError("broken")
        return toy_run(number, policy)

    assert search(tmp_path, 3, broken, seed=7).results[2].seed == 7


def test_another_machine_is_warned_of(tmp_path, monkeypatch, caplog):
    search(tmp_path, 3)
    search(tmp_path, 4)
    assert "for latencies to compare" not in caplog.text
    monkeypatch.setattr("autocomp.study.sessions.machine", lambda: {"processor": "another"})
    study = search(tmp_path, 5)
    assert "must have one machine throughout for latencies to compare" in caplog.text
    sessions = json.loads((tmp_path / "study.json").read_text())["sessions"]
    assert [one["machine"].get("processor") == "another" for one in sessions] == [
        False,
        False,
        True,
    ]
    assert study.front().provenance["sessions"] == 3


def test_a_record_that_tells_less_is_no_other_machine(tmp_path, monkeypatch, caplog):
    search(tmp_path, 3)
    told = machine() | {"more": "than before"}
    monkeypatch.setattr("autocomp.study.sessions.machine", lambda: told)
    search(tmp_path, 4)
    assert "for latencies to compare" not in caplog.text


def test_failed_and_stopped_trials_are_told_as_such(tmp_path):
    def run(number, policy):
        if number == 2:
            raise RuntimeError("broken")
        if number == 3:
            return TrialResult(
                number=3,
                policy_id=policy.id,
                status="stopped",
                reason="larger than allowed",
                metrics={"size_mb": 7.0},
            )
        return toy_run(number, policy)

    study = search(tmp_path, 6, run, objectives=HALF, sampler="tpe")
    told = {
        one.user_attrs["trial"]: one for one in optuna_trials(tmp_path) if "trial" in one.user_attrs
    }
    assert told[2].state is TrialState.FAIL
    assert told[2].user_attrs["reason"] == "RuntimeError: broken"
    assert told[3].state is TrialState.PRUNED
    assert told[3].constraints == {"size_mb": pytest.approx(0.4)}
    assert told[0].constraints == {"size_mb": pytest.approx(1.0)}
    assert study.results[3].metrics == {"size_mb": 7.0}
    assert "broken" in (tmp_path / "trials" / "00002" / "log.txt").read_text()


@pytest.mark.parametrize("status", ["stopped", "failed"])
def test_only_complete_trials_keep_predictions(tmp_path, status):
    def run(number, policy):
        result = predicting_run(tmp_path)(number, policy)
        return result if number != 3 else result.model_copy(update={"status": status})

    search(tmp_path, 5, run)
    kept = [int(path.parent.name) for path in sorted(tmp_path.glob("trials/*/predictions.json"))]
    assert kept == [0, 1, 2, 4]


def test_a_control_that_is_the_dense_model_has_its_predictions(tmp_path):
    search(tmp_path, 3, predicting_run(tmp_path), steps=FEW_STEPS)
    dense, control = (
        tmp_path / "trials" / name / "predictions.json" for name in ("00000", "00001")
    )
    assert control.read_bytes() == dense.read_bytes()


def test_a_small_space_is_exhausted_without_running_a_policy_twice(tmp_path):
    events = []
    study = search(tmp_path, 20, on_event=events.append, steps=FEW_STEPS, ladder=False)
    # dense, the control, which is the same here, 8 and 4 bits; 32 bits would be dense again
    assert len(study.results) == 4
    assert len({policy.id for policy in study.policies.values()}) == 3
    assert study.results[1].metrics == study.results[0].metrics
    assert 1 not in [one.trial for one in study.front().members]
    assert study.exhausted
    duplicates = [one for one in optuna_trials(tmp_path) if "duplicate_of" in one.user_attrs]
    assert duplicates
    assert all(one.state is TrialState.FAIL for one in duplicates)
    assert all("trial" not in one.user_attrs for one in duplicates)


def test_checkpoints_stay_only_on_the_front(tmp_path):
    def run(number, policy):
        checkpoint = tmp_path / "trials" / f"{number:05d}" / "checkpoint"
        checkpoint.mkdir()
        (checkpoint / "model.safetensors").touch()
        return toy_run(number, policy)

    study = search(tmp_path, 25, run, objectives=HALF)
    kept = {int(path.parent.name) for path in tmp_path.glob("trials/*/checkpoint")}
    assert kept == {0, 1, *(one.trial for one in study.front().members)}
    assert len(kept) < 25


def test_events_count_up_to_the_total(tmp_path):
    events = []
    study = search(tmp_path, 6, on_event=events.append)
    assert [event.done for event in events] == list(range(7))
    assert [event.result.number for event in events[1:]] == list(range(6))
    assert all(event.total == 6 for event in events)
    assert events[0].seconds_left is None
    assert events[-1].seconds_left == 0
    assert events[-1].front_size == len(study.front().members)
    assert events[-1].hypervolume == study.front().hypervolume


def test_an_interrupted_search_releases_its_folder_and_goes_on(tmp_path):
    def interrupted(number, policy):
        if number == 3:
            raise KeyboardInterrupt
        return toy_run(number, policy)

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, 6, interrupted)
    assert sorted(Study.load(tmp_path).results) == [0, 1, 2]
    assert sorted(search(tmp_path, 6).results) == list(range(6))


def test_a_recorded_study_can_be_replayed(tmp_path):
    first = search(tmp_path / "first", 15, sampler="tpe")
    table = {one.policy_id: one for one in first.results.values()}
    again = open_toy(tmp_path / "again", sampler="tpe", trials=15)
    front = search_loop(again, ReplayRunner(table), 15)
    assert front.members == first.front().members


def test_a_resumed_sampler_does_not_repeat_its_draws(tmp_path):
    search(tmp_path, 10, ladder=False)
    study = search(tmp_path, 20, ladder=False)
    assert not any("duplicate_of" in one.user_attrs for one in optuna_trials(tmp_path))
    seeds = json.loads((tmp_path / "study.json").read_text())["sessions"]
    assert [one["seed"] for one in seeds] == [0, 10]
    assert len(study.results) == 20


def test_a_lost_journal_is_survived(tmp_path):
    search(tmp_path, 8)
    (tmp_path / "journal.log").unlink()
    assert sorted(search(tmp_path, 12).results) == list(range(12))


def test_overhead_is_small(tmp_path):
    start = time.monotonic()
    study = search(tmp_path, 30, sampler="tpe")
    assert 0 < study.overhead_s < time.monotonic() - start
    assert study.overhead_s / 30 < 1.0
