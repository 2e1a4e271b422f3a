"""A trial is a function of its policy: compress, retrain, lower, measure the files that ship."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import RECURRENT, changed, weights

from autocomp.bench import Bench, open_bench
from autocomp.checkpoint.folder import METRICS, open_checkpoint
from autocomp.measure import quality
from autocomp.policy import Policy
from autocomp.predictions import Predictions
from autocomp.results import TrialResult
from autocomp.ship.verify import depends_on_load, verify
from autocomp.space.objectives import Bound, Objective
from autocomp.space.space import SearchSpace
from autocomp.study.driver import search
from autocomp.tensors import TENSORS, TensorRecords
from autocomp.timing import is_time
from autocomp.trial import run_trial

pytestmark = pytest.mark.usefixtures("tiny")
RETRAIN = {"kind": "retrain", "steps": 2, "batch_size": 16, "precision": "fp32"}
STEPS: list[dict[str, Any]] = [
    {"kind": "prune_channels", "layers": "encoder.backbone", "ratio": 0.4, "criterion": "taylor"},
    {"kind": "prune_heads", "layers": "decoder", "ratio": 0.5},
    {"kind": "drop_layers", "layers": "decoder.layers", "keep": 1, "select": "block_influence"},
    {"kind": "prune_width", "layers": "decoder", "ratio": 0.5},
    {**RETRAIN, "distill": 0.5, "hidden": 0.1},
    {"kind": "quantize", "layers": "**", "bits": {"encoder": 8, "decoder": 4}},
]


def policy(*steps: dict[str, Any]) -> Policy:
    return Policy.model_validate({"steps": steps})


def repeats(metric: str) -> bool:
    return not depends_on_load(metric)


@pytest.fixture(scope="module")
def bench(tiny_study: Path) -> Bench:
    return open_bench(SearchSpace.load(tiny_study / "space.yaml"), tiny_study)


@pytest.fixture(scope="module")
def twice(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[TrialResult, Path]]:
    """The same policy carried out two times, and where the checkpoints are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autocomp.evaluate.captions.java_available", lambda: False)
        done = []
        before = torch.get_num_threads()
        for threads in (1, 2):  # whatever the process computes with, a trial has its target's
            torch.set_num_threads(threads)
            folder = tmp_path_factory.mktemp("trial") / "checkpoint"
            done.append((run_trial(bench, 7, policy(*STEPS), folder), folder))
            assert torch.get_num_threads() == threads
        torch.set_num_threads(before)
        return done


def test_a_policy_is_repeatable(twice: list[tuple[TrialResult, Path]]) -> None:
    (first, one), (second, two) = twice
    assert first.status == second.status == "complete"
    assert first.reason is None
    assert set(first.metrics) == set(second.metrics)
    for name in filter(repeats, first.metrics):
        assert first.metrics[name] == second.metrics[name], name
    for name in ("model.safetensors", "encoder.onnx", "decoder.onnx"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_numbers_are_of_the_files_that_ship(
    twice: list[tuple[TrialResult, Path]], bench: Bench
) -> None:
    (result, folder), _ = twice
    checkpoint = open_checkpoint(folder)
    assert checkpoint.metrics == result.metrics
    assert checkpoint.policy == policy(*STEPS)
    opened = sum(path.stat().st_size for path in checkpoint.artifact.files)
    assert result.metrics["size_mb"] == opened / 1e6
    fetched = ["model.safetensors", "config.json", "tokenizer.json", "preprocessing.json"]
    assert result.metrics["download_mb"] == (
        sum((folder / name).stat().st_size for name in fetched) / 1e6
    )
    dense = bench.dense.metrics
    for name in ("size_mb", "download_mb", "params", "macs"):
        assert result.metrics[name] < dense[name]
    ratio = result.metrics["latency_ratio"]
    assert result.metrics["latency_ms"] == pytest.approx(ratio * dense["latency_ms"])


def test_a_result_says_how_it_came_about(
    twice: list[tuple[TrialResult, Path]], bench: Bench
) -> None:
    (result, folder), _ = twice
    assert (result.number, result.policy_id) == (7, policy(*STEPS).id)
    assert set(result.seconds) == {step["kind"] for step in STEPS} | {
        "lower",
        "evaluate",
        "measure",
    }
    assert result.seed == bench.seed
    assert {"python", "torch", "onnxruntime"} <= set(result.versions)
    # a hidden width of 64 pruned by half is a multiple of 32, two heads of which one goes
    assert result.skipped == ()
    assert "remove 40% of the channels" in (folder / "README.md").read_text()


def test_a_trial_leaves_what_it_predicted_of_each_image(bench: Bench, tmp_path: Path) -> None:
    path, steps = tmp_path / "predictions.json", policy(STEPS[-1])
    path.write_text("of a run that was killed")
    result = run_trial(bench, 7, steps, tmp_path / "checkpoint", predictions_file=path)
    found = Predictions.read(path)
    checkpoint = open_checkpoint(tmp_path / "checkpoint")
    _, predictions = quality(checkpoint.task, checkpoint.run, "dev")
    assert (found.split, found.names) == ("dev", bench.task.names("dev"))
    assert list(found.predictions) == predictions
    assert set(found.scores) == {"cider", "rouge_l"}
    for name, each in found.scores.items():
        assert statistics.mean(each) == pytest.approx(result.metrics[name], abs=1e-6)
        assert all(score == round(score, 6) for score in each)


def test_a_trial_that_does_not_complete_leaves_no_predictions(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    violent = policy({**RETRAIN, "steps": 5, "lr": 1e30, "warmup": 0})
    run_trial(bench, 4, violent, tmp_path / "checkpoint", predictions_file=path)
    assert not path.exists()


def test_a_trial_leaves_the_dense_model_alone(bench: Bench, tmp_path: Path) -> None:
    before = weights(bench.teacher)
    run_trial(bench, 0, policy({**RETRAIN, "distill": 1.0}), tmp_path / "checkpoint")
    assert changed(before, bench.teacher) == set()
    assert changed(before, bench.dense.compressed().module) == set()


def test_the_dense_policy_measures_as_the_dense_model(bench: Bench, tmp_path: Path) -> None:
    result = run_trial(bench, 0, Policy(), tmp_path / "checkpoint")
    assert set(result.metrics) == set(bench.dense.metrics)
    for name in result.metrics:
        rel = 1e-9 if repeats(name) or is_time(name) else 0.2
        assert result.metrics[name] == pytest.approx(bench.dense.metrics[name], rel=rel), name
    assert result.metrics["latency_ratio"] == 1


@pytest.mark.parametrize(
    ("metric", "bound", "stops"),
    [
        ("size_mb", {"at_most": Bound(0.05, of_dense=True)}, True),
        ("size_mb", {"at_most": Bound(0.93, of_dense=True)}, False),
        ("params", {"at_most": Bound(1000)}, True),
        ("cider", {"at_least": Bound(9.0)}, False),
    ],
    ids=["far beyond", "within the slack", "in its own unit", "not known before"],
)
def test_what_clearly_breaks_a_bound_stops_before_it_is_retrained(
    metric: str, bound: dict[str, Bound], stops: bool, bench: Bench, tmp_path: Path
) -> None:
    strict = replace(bench, objectives=(Objective(metric, **bound),))
    steps = policy({"kind": "prune_width", "layers": "decoder", "ratio": 0.5}, RETRAIN)
    result = run_trial(strict, 3, steps, tmp_path / "checkpoint")
    assert result.status == ("stopped" if stops else "complete")
    assert ("retrain" in result.seconds) != stops
    assert ("cider" in result.metrics) != stops
    assert (tmp_path / "checkpoint").exists() != stops
    if stops:
        assert result.reason is not None
        assert result.reason.startswith(f"before retraining, {metric} is ")
        assert result.metrics["size_mb"] > 0


@pytest.mark.parametrize(
    "steps",
    [
        [{"kind": "prune_width", "layers": "decoder", "ratio": 0.5}],
        [RETRAIN],
    ],
    ids=["nothing to save", "nothing to know"],
)
def test_nothing_is_probed_where_no_retraining_could_be_saved(
    steps: list[dict[str, Any]], bench: Bench, tmp_path: Path
) -> None:
    strict = replace(bench, objectives=(Objective("size_mb", at_most=Bound(0.0001)),))
    result = run_trial(strict, 3, policy(*steps), tmp_path / "checkpoint")
    assert result.status == "complete"
    assert "probe" not in result.seconds


def test_a_training_that_diverges_is_a_result(bench: Bench, tmp_path: Path) -> None:
    violent = {**RETRAIN, "steps": 5, "lr": 1e30, "warmup": 0}
    result = run_trial(bench, 4, policy(violent), tmp_path / "checkpoint")
    assert result.status == "stopped"
    assert result.reason is not None
    assert " became " in result.reason
    assert result.metrics == {}
    assert list(tmp_path.iterdir()) == []


def test_a_policy_that_does_not_fit_fails_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    wrong = policy(RETRAIN, {"kind": "prune_heads", "layers": "nowhere", "ratio": 0.5})
    result = run_trial(bench, 5, wrong, tmp_path / "checkpoint", tmp_path / "log.txt")
    assert result.status == "failed"
    assert result.reason is not None
    assert result.reason.startswith("prune_heads.layers: must match a layer")
    assert result.seconds["retrain"] > 0
    assert list(tmp_path.iterdir()) == []


def test_what_fails_halfway_keeps_what_it_spent(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("autocomp.trial.quality", run_out)
    log = tmp_path / "log.txt"
    result = run_trial(bench, 5, policy(RETRAIN), tmp_path / "checkpoint", log)
    assert result.status == "failed"
    assert result.reason == "out of memory: DefaultCPUAllocator: can't allocate memory"
    assert result.seconds["retrain"] > 0
    assert "run_out" in log.read_text()
    assert not (tmp_path / "checkpoint").exists()
    log.unlink()
    run_trial(bench, 5, policy(RETRAIN), tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == []


def test_only_a_latency_bound_times_before_retraining(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("timed")

    monkeypatch.setattr("autocomp.trial.time_beside", refuse)
    steps = policy({"kind": "prune_width", "layers": "decoder", "ratio": 0.5}, RETRAIN)
    for metric, status in (("size_mb", "stopped"), ("latency_ratio", "failed")):
        strict = replace(bench, objectives=(Objective(metric, at_most=Bound(0.001)),))
        assert run_trial(strict, 5, steps, tmp_path / "checkpoint").status == status


def test_a_checkpoint_replaces_an_older_one_whole(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    for bits in (8, 32):
        run_trial(bench, 6, policy({"kind": "quantize", "layers": "**", "bits": bits}), folder)
    assert open_checkpoint(folder).compressed().quantized == {}
    assert (folder / METRICS).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_smaller_images_ship_with_the_checkpoint(bench: Bench, tmp_path: Path) -> None:
    size = bench.task.image_size // 2
    steps = (
        {"kind": "resize", "image_size": size},
        {"kind": "quantize", "layers": "**", "bits": 16},
    )
    result = run_trial(bench, 3, policy(*steps), tmp_path / "checkpoint")
    assert (result.status, result.skipped) == ("complete", ())
    assert result.metrics["macs"] < bench.dense.metrics["macs"]
    assert result.metrics["size_mb"] < 0.6 * bench.dense.metrics["size_mb"]
    checkpoint = open_checkpoint(tmp_path / "checkpoint")
    assert (checkpoint.task.image_size, checkpoint.dense_task.image_size) == (size, 2 * size)
    verification = verify(tmp_path / "checkpoint")
    assert verification.rebuilt == "same files"
    quality = [row for row in verification.rows if row.metric in ("cider", "bleu_4", "size_mb")]
    assert all(row.agrees for row in quality)
    raw = bench.raw_inputs[0]
    module = checkpoint.compressed().module
    assert module.encoder.image_size == size
    assert checkpoint.task.read(raw).shape == (1, size, size, 3)


@pytest.mark.parametrize("name", ["lstm attention", "gru merge"])
def test_a_recurrent_captioner_goes_the_same_way(
    name: str, tiny_study: Path, tmp_path: Path
) -> None:
    steps = [
        {"kind": "prune_width", "layers": "decoder", "ratio": 0.5, "criterion": "taylor"},
        {**RETRAIN, "distill": 0.5, "hidden": 0.1},
        {"kind": "quantize", "layers": "**", "bits": {"encoder": 8, "decoder": 4}},
    ]
    document = SearchSpace.load(tiny_study / "space.yaml").to_dict()
    document["task"]["model"] = RECURRENT[name]
    space = SearchSpace.from_dict(document | {"policy": {"steps": steps}})
    study = search(space, trials=3, directory=tmp_path / "study", workers=0)
    assert [one.status for one in study.results.values()] == ["complete"] * 3
    assert study.results[2].skipped == ()
    folder = study.directory / "trials" / "00002"
    cell = [
        one
        for one in TensorRecords.read(folder / TENSORS).tensors
        if one.name in ("decoder.cell.input.weight", "decoder.cell.hidden.weight")
    ]
    gates = 4 if "lstm" in name else 3
    assert [(one.bits, one.shape[0]) for one in cell] == [(4, 32 * gates)] * 2
    verification = verify(folder / "checkpoint")
    assert verification.rebuilt == "same files"
    assert all(row.agrees is not False for row in verification.rows if repeats(row.metric))
