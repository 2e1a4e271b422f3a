"""Carrying out a policy: the order of its steps, what is reported, and what must not change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import carry_out, changed, weights

from autocomp.apply import DROPPED, UNCHANGED, apply_
from autocomp.bench import Bench
from autocomp.clock import Clock
from autocomp.errors import PolicyError
from autocomp.policy import Policy
from autocomp.work import Work

pytestmark = pytest.mark.usefixtures("tiny")
RETRAIN = {"kind": "retrain", "steps": 2, "batch_size": 16, "precision": "fp32"}


@pytest.mark.parametrize(
    "step",
    [
        {"kind": "prune_channels", "layers": "encoder.backbone", "ratio": 0.0},
        {"kind": "prune_heads", "layers": "decoder", "ratio": 0.0, "criterion": "taylor"},
        {"kind": "prune_width", "layers": "decoder", "ratio": 0.0},
        {"kind": "drop_layers", "layers": "decoder.layers", "keep": 2},
        {"kind": "quantize", "layers": "**", "bits": 32},
        {"kind": "fixed_point", "layers": "**", "bits": 32},
        {**RETRAIN, "steps": 0},
    ],
    ids=lambda step: step["kind"],
)
def test_a_step_that_removes_nothing_is_the_identity(step: dict[str, Any], work: Work) -> None:
    before = weights(work.module)
    assert carry_out(work, step) == []
    assert changed(before, work.module) == set()
    assert work.compressed.coded == set()


FEATURES = {**RETRAIN, "loss": "features", "train": "encoder"}
CHANNELS = {"kind": "prune_channels", "layers": "encoder.backbone", "ratio": 0.4}
GAMMA = {"kind": "gamma_l1", "layers": "encoder.backbone", "strength": 0.1}


@pytest.mark.parametrize(
    "before", [[], [{"kind": "drop_layers", "layers": "decoder.layers", "keep": 1}]]
)
def test_features_that_are_the_dense_ones_are_left_alone(
    before: list[dict[str, Any]], work: Work
) -> None:
    carry_out(work, *before)
    held = weights(work.module)
    assert carry_out(work, FEATURES) == [f"steps.0.retrain: {UNCHANGED}"]
    assert changed(held, work.module) == set()


@pytest.mark.parametrize(
    "step",
    [CHANNELS, GAMMA, {"kind": "resize", "image_size": 24}],
    ids=lambda step: step["kind"],
)
def test_features_are_learnt_where_there_is_something_to_learn(
    step: dict[str, Any], work: Work
) -> None:
    assert carry_out(work, step, FEATURES) == []
    dense = work.bench.teacher.state_dict()
    trained = "encoder.projection.bias"  # which no other step touches
    assert not torch.equal(work.module.state_dict()[trained], dense[trained])


def test_batch_norm_is_measured_again_after_channels_are_removed(work: Work) -> None:
    before = work.module.encoder.backbone.layers[1].bn2.running_mean.clone()
    step = {"kind": "prune_channels", "layers": "encoder.backbone.layers.0.conv1", "ratio": 0.4}
    assert carry_out(work, step) == []
    assert work.module.encoder.backbone.layers[0].conv1.out_channels < 48
    # this norm lost no channel, and sees others than before
    assert not torch.equal(work.module.encoder.backbone.layers[1].bn2.running_mean, before)


def test_stages_are_timed_and_lines_say_which_step(work: Work) -> None:
    clock = Clock()
    policy = Policy.model_validate(
        {
            "steps": [
                {"kind": "drop_layers", "layers": "decoder.layers", "keep": 1},
                {"kind": "drop_layers", "layers": "decoder.layers", "keep": 2},
                RETRAIN,
            ]
        }
    )
    skipped = apply_(work, policy, clock)
    rule = "asked to keep 2 layers, and it has 1"
    assert skipped == [f"steps.1.drop_layers: decoder.layers: {rule}"]
    assert list(clock.seconds) == ["drop_layers", "retrain"]


@pytest.mark.parametrize(
    "step",
    [
        {"kind": "prune_heads", "layers": "decoder.layers.0", "ratio": 0.5},
        {"kind": "prune_width", "layers": "decoder.layers.0.ffn", "ratio": 0.5},
        {"kind": "quantize", "layers": "decoder.layers.0.*", "bits": 8},
        {**RETRAIN, "train": "decoder.layers.0"},
    ],
    ids=lambda step: step["kind"],
)
def test_layers_that_were_dropped_are_skipped_and_not_missed(
    step: dict[str, Any], work: Work
) -> None:
    drop = {"kind": "drop_layers", "layers": "decoder.layers", "keep": 1, "select": "last"}
    assert carry_out(work, drop, step) == [f"steps.1.{step['kind']}: {DROPPED}"]
    wrong = {**step, "train" if "train" in step else "layers": "decoder.layers.9"}
    with pytest.raises(PolicyError, match="matches none"):
        carry_out(work, wrong)


def test_regimes_last_until_the_next_retrain(work: Work) -> None:
    gamma = {"kind": "gamma_l1", "layers": "encoder.backbone", "strength": 0.1}
    assert carry_out(work, gamma, RETRAIN) == []
    assert work.regimes == []


def test_a_regime_that_can_do_nothing_is_reported(work: Work) -> None:
    gamma = {"kind": "gamma_l1", "layers": "encoder.backbone"}
    (line,) = carry_out(work, gamma, {**RETRAIN, "exclude": "encoder.backbone"})
    assert line == "steps.1.retrain: gamma_l1 shrinks nothing: its BatchNorm layers are not trained"


def test_a_retrain_that_distils_learns_from_the_dense_model(work: Work, bench: Bench) -> None:
    before = weights(bench.teacher)
    steps = {"kind": "drop_layers", "layers": "decoder.layers", "keep": 1, "select": "last"}
    assert carry_out(work, steps, {**RETRAIN, "distill": 0.5, "hidden": 0.1}) == []
    assert changed(before, bench.teacher) == set()


def test_a_smaller_image_changes_no_weight(work: Work) -> None:
    size, before = work.task.image_size, weights(work.module)
    assert carry_out(work, {"kind": "resize", "image_size": size // 2}) == []
    assert changed(before, work.module) == set()
    assert (work.image_size, work.task.image_size) == (size // 2, size // 2)
    assert work.bench.task.image_size == size
    (batch,) = work.calibration(1)
    assert batch["images"].shape[1:] == (size // 2, size // 2, 3)
    assert work.forward(batch).loss.isfinite()


def test_a_smaller_image_learns_from_the_dense_model_s(work: Work) -> None:
    before = weights(work.module)
    resize = {"kind": "resize", "image_size": work.task.image_size // 2}
    assert carry_out(work, resize, FEATURES, {**RETRAIN, "distill": 0.5, "hidden": 0.1}) == []
    assert any(name.startswith("encoder.backbone") for name in changed(before, work.module))
