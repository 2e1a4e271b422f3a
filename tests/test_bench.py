"""What the trials of a study share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import changed, tiny_task, weights

from autocomp.bench import (
    Bench,
    compressible_layers,
    container_depths,
    find_dense,
    open_bench,
    prepare_dense,
)
from autocomp.errors import StudyError
from autocomp.policy import STEPS, Policy
from autocomp.space.space import SearchSpace
from autocomp.tasks.captioning import Captioning

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def space(tiny_study: Path) -> SearchSpace:
    return SearchSpace.load(tiny_study / "space.yaml")


@pytest.fixture(scope="module")
def bench(space: SearchSpace, tiny_study: Path) -> Bench:
    return open_bench(space, tiny_study)


def test_the_dense_checkpoint_is_a_trial_like_any_other(bench: Bench) -> None:
    metrics = bench.dense.metrics
    assert metrics["latency_ratio"] == 1
    assert metrics["size_mb"] == pytest.approx(bench.dense.artifact.size_bytes / 1e6)
    assert bench.steps == max(1, round(metrics["mean_tokens"]))
    assert bench.dense.config.dense_latency_ms == metrics["latency_ms"] > 0
    assert bench.dense.policy == Policy()
    assert bench.target == bench.dense.config.target


def test_a_dense_model_that_is_there_is_not_made_again(
    space: SearchSpace, tiny_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("autocomp.bench.dense_model", refuse)
    assert prepare_dense(space, tiny_study).metrics["size_mb"] > 0


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"seed": 7}, "another seed;"),
        ({"target": {"kind": "onnxruntime", "threads": 2}}, "another target;"),
        ({"min_count": 2}, "another task;"),
        ({"seed": 7, "min_count": 2}, "another task and another seed;"),
    ],
    ids=["seed", "target", "task", "both"],
)
def test_a_dense_model_of_another_study_is_refused(
    space: SearchSpace, tiny_study: Path, changes: dict[str, Any], differing: str
) -> None:
    seed = changes.get("seed", space.search.seed)
    other = replace(
        space,
        task={**space.task, "min_count": changes.get("min_count", 1)},
        target=changes.get("target", space.target),
        search=space.search.model_copy(update={"seed": seed}),
    )
    with pytest.raises(StudyError, match=differing):
        prepare_dense(other, tiny_study)


def test_a_dense_model_of_other_data_is_refused(
    space: SearchSpace, tiny_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Captioning, "fingerprint", lambda task: "one caption was corrected")
    with pytest.raises(StudyError, match="must be the dense model of these data"):
        prepare_dense(space, tiny_study)


def test_as_many_layers_may_be_kept_as_a_decoder_allows() -> None:
    depths = container_depths(tiny_task({"encoder_layers": 1}))
    assert depths == {"encoder.layers": (0, 1), "decoder.layers": (1, 2)}


def test_a_dense_model_that_is_not_there_is_not_found(space: SearchSpace, tmp_path: Path) -> None:
    assert find_dense(space, tmp_path) is None


def test_the_teacher_is_the_dense_model(bench: Bench) -> None:
    teacher = bench.teacher
    assert teacher is bench.teacher
    assert changed(weights(bench.dense.compressed().module), teacher) == set()
    assert not any(module.training for module in teacher.modules())


def test_timed_examples_are_of_dev(bench: Bench) -> None:
    assert len(bench.raw_inputs) == 8
    first = bench.task.read(bench.raw_inputs[0])
    assert (first == bench.task.inputs("dev", 0, 1)).all()


def test_every_step_knows_the_layers_it_can_act_on() -> None:
    layers = compressible_layers(tiny_task({"encoder_layers": 1}))
    assert {*layers, "resize"} == set(STEPS)  # which acts on images
    assert "encoder.backbone.layers.0.conv1" in layers["prune_channels"]
    assert layers["prune_heads"] == [
        "encoder.layers.0.self_attention",
        "decoder.layers.0.self_attention",
        "decoder.layers.0.cross_attention",
        "decoder.layers.1.self_attention",
        "decoder.layers.1.cross_attention",
    ]
    assert layers["prune_width"][0] == "encoder.layers.0.ffn"
    assert layers["drop_layers"] == ["encoder.layers", "decoder.layers"]
    assert "encoder.backbone.bn_stem" in layers["gamma_l1"]
    assert "decoder.embedding" in layers["quantize"]
    assert "decoder.head" not in layers["quantize"]
    assert "encoder.projection.bias" in layers["retrain"]


def test_channels_are_pruned_under_the_models_own_names() -> None:
    task = tiny_task()
    model = task.build().eval()
    graph, inputs = task.channel_graph(model)
    assert set(compressible_layers(task)["prune_channels"]) <= dict(model.named_modules()).keys()
    with torch.no_grad():
        assert graph(*inputs).shape == (2, 16, 32)
