"""Readings are of the artefact, kept as they come, and never taken twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autocomp.errors import SpaceError, StudyError
from autocomp.space.metrics import METRICS
from autocomp.space.objectives import parse_objectives
from autocomp.space.space import SearchSpace
from autocomp.study.sensitivity import (
    SENSITIVITY,
    Reading,
    Sensitivity,
    measure_sensitivity,
    quality_of,
)

pytestmark = pytest.mark.usefixtures("tiny")
STEPS = [
    {"kind": "prune_width", "layers": "decoder", "ratio": {"choice": [0.0, 0.5]}},
    {
        "kind": "quantize",
        "layers": ["decoder.layers.0.ffn", "encoder.backbone.conv_stem"],
        "bits": {"choice": [8, 4]},
    },
]


@pytest.fixture(scope="module")
def document(tiny_study: Path) -> dict[str, Any]:
    return SearchSpace.load(tiny_study / "space.yaml").to_dict()


def read(
    document: dict[str, Any], folder: Path, steps: list[Any] = STEPS, examples: int = 8, **more: Any
) -> Sensitivity:
    space = SearchSpace.from_dict(document | {"policy": {"steps": steps}})
    return measure_sensitivity(space, folder, examples=examples, workers=0, **more)


def test_each_layer_is_read_alone(document: dict[str, Any], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = read(document, tmp_path, on_reading=lambda _, done, total: seen.append((done, total)))
    keys = [(one.layer.split(".")[-1], one.kind, one.value) for one in found.readings]
    assert keys == [
        ("ffn", "prune_width", 0.5),
        ("ffn", "prune_width", 0.5),
        ("conv_stem", "quantize", 8),
        ("conv_stem", "quantize", 4),
        ("up", "quantize", 8),
        ("up", "quantize", 4),
        ("down", "quantize", 8),
        ("down", "quantize", 4),
    ]
    assert seen == [(done, 8) for done in range(1, 9)]
    assert {one.status for one in found.readings} == {"complete"}
    assert all(one.metrics["size_mb"] < found.dense["size_mb"] for one in found.readings)
    # a convolution of 27 inputs a channel has too few for 4 bits
    assert "keep 8" in " ".join(found.readings[3].skipped)
    assert found.examples == 8
    assert not (tmp_path / "trials").exists()


def test_only_what_is_missing_or_failed_is_read_again(
    document: dict[str, Any], tmp_path: Path
) -> None:
    whole = read(document, tmp_path)
    path = tmp_path / SENSITIVITY
    content = json.loads(path.read_text())
    content["readings"] = content["readings"][:5]
    content["readings"][2] |= {"status": "failed", "reason": "no space left", "metrics": {}}
    path.write_text(json.dumps(content))
    again: list[Reading] = []
    assert read(document, tmp_path, on_reading=lambda one, *_: again.append(one)) == whole
    assert tuple(again) == (whole.readings[2], *whole.readings[5:])


def test_a_small_split_is_read_whole_and_said(document: dict[str, Any], tmp_path: Path) -> None:
    found = read(document, tmp_path, STEPS[:1], examples=200)
    assert found.examples == document["task"]["data"]["dev"] == 16
    assert read(document, tmp_path, STEPS[:1], examples=16) == found


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"examples": 4}, "of 4 examples"),
        ({"steps": STEPS[1:]}, "of the same space"),
        ({"retrain_steps": 9}, "of 9 steps of retraining"),
    ],
    ids=["examples", "space", "retraining"],
)
def test_other_readings_are_left_alone(
    change: dict[str, Any], rule: str, document: dict[str, Any], tmp_path: Path
) -> None:
    read(document, tmp_path, steps=STEPS)
    before = (tmp_path / SENSITIVITY).read_bytes()
    with pytest.raises(StudyError, match=rule):
        read(document, tmp_path, **change)
    assert (tmp_path / SENSITIVITY).read_bytes() == before


def test_what_is_pruned_can_be_retrained_before_it_is_read(
    document: dict[str, Any], tmp_path: Path
) -> None:
    retrain = {"kind": "retrain", "steps": 3, "lr": 5.0e-3, "batch_size": 8}
    steps = [STEPS[0], retrain]
    found = read(document, tmp_path / "retrained", steps, retrain_steps=2)
    plain = read(document, tmp_path / "plain", steps)
    assert [one.policy.steps[-1].kind for one in found.readings] == ["retrain"] * 2
    assert {one.status for one in found.readings} == {"complete"}
    for one, before in zip(found.readings, plain.readings, strict=True):
        assert one.policy.steps[:1] == before.policy.steps
        assert one.metrics["params"] == before.metrics["params"]


COSTS_ALONE = {"size_mb": "minimize", "latency_ms": "minimize", "decoder_step_ms": "minimize"}


def test_costs_alone_are_refused_before_anything_is_trained(
    document: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(SpaceError, match="must hold a quality with a direction, but hold size_mb"):
        read(document | {"objectives": COSTS_ALONE}, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        ({"error": "minimize", "size_mb": "minimize"}, ("error", "minimize")),
        ({"size_mb": "minimize", "cider": "maximize"}, ("cider", "maximize")),
        ({"top_class_share": "minimize", "top_1": "maximize"}, ("top_1", "maximize")),
        ({"cider": {"at_least": 0.1}, "bleu_4": "maximize"}, ("bleu_4", "maximize")),
    ],
    ids=["error", "after size", "a share beside accuracy", "a bound alone"],
)
def test_readings_are_compared_by_a_quality(
    objectives: dict[str, Any], expected: tuple[str, str]
) -> None:
    known = METRICS | {"error": "minimize"}
    assert quality_of(parse_objectives(objectives, known, [])) == expected


def test_a_dense_model_without_quality_is_said_before_a_layer_is_read(
    document: dict[str, Any], tmp_path: Path
) -> None:
    read(document, tmp_path, STEPS[:1])
    path = tmp_path / SENSITIVITY
    content = json.loads(path.read_text())
    content["dense"]["cider"] = 0.0
    path.write_text(json.dumps(content | {"readings": []}))
    with pytest.raises(StudyError, match=r"cider on 8 examples must not be 0"):
        read(document, tmp_path, STEPS[:1])
    assert json.loads(path.read_text())["readings"] == []


@pytest.mark.parametrize(
    ("metric", "direction", "dense"),
    [("cider", "maximize", -2.5), ("mean_tokens", "minimize", 0.0)],
    ids=["likelihood", "error"],
)
def test_a_quality_may_be_at_or_below_zero_by_nature(
    metric: str, direction: str, dense: float, document: dict[str, Any], tmp_path: Path
) -> None:
    objectives = {metric: direction, "size_mb": "minimize"}
    read(document | {"objectives": objectives}, tmp_path, STEPS[:1])
    path = tmp_path / SENSITIVITY
    content = json.loads(path.read_text())
    content["dense"][metric] = dense
    path.write_text(json.dumps(content | {"readings": content["readings"][:1]}))
    found = read(document | {"objectives": objectives}, tmp_path, STEPS[:1])
    assert len(found.readings) == 2


def test_what_a_layer_cannot_lose_is_said(document: dict[str, Any], tmp_path: Path) -> None:
    heads = {"kind": "prune_channels", "layers": "encoder.backbone.conv_stem"}
    found = read(document, tmp_path, [heads | {"ratio": {"choice": [0.5]}, "round_to": 10**6}])
    (reading,) = found.readings
    assert reading.status == "complete"
    assert reading.skipped


def test_a_space_that_searches_no_layer_is_refused(
    document: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(SpaceError, match="must search bits or a ratio"):
        read(document, tmp_path, [{"kind": "retrain", "steps": {"choice": [1, 2]}}])
