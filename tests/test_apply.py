"""Carrying out a policy: the order of its steps, what is reported, and what must not change."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import changed, weights
from torch import Tensor, nn

from autocomp.apply import DROPPED, UNCHANGED, Work, apply_
from autocomp.bench import Bench, open_bench
from autocomp.clock import Clock
from autocomp.compress.correction import Statistics
from autocomp.compress.formats import quantize_tensor, with_gain
from autocomp.compress.quantize import quantize_
from autocomp.errors import PolicyError
from autocomp.policy import Policy
from autocomp.rounding import Quantize, Rounding
from autocomp.space.space import SearchSpace

pytestmark = pytest.mark.usefixtures("tiny")
RETRAIN = {"kind": "retrain", "steps": 2, "batch_size": 16, "precision": "fp32"}


@pytest.fixture(scope="module")
def bench(tiny_study: Path) -> Bench:
    return open_bench(SearchSpace.load(tiny_study / "space.yaml"), tiny_study)


@pytest.fixture
def work(bench: Bench) -> Work:
    return Work(bench.dense.compressed(), bench)


def carry_out(work: Work, *steps: dict[str, Any]) -> list[str]:
    return apply_(work, Policy.model_validate({"steps": steps}), Clock())


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


QAT = {"kind": "quantize", "layers": "decoder", "bits": 4, "qat": True}


def test_weights_are_trained_through_their_rounding_and_then_stay(work: Work) -> None:
    assert carry_out(work, QAT, RETRAIN) == []
    tensors = work.compressed.quantized
    assert {name.split(".")[0] for name in tensors} == {"decoder"}
    for name, tensor in tensors.items():
        assert torch.equal(work.module.get_parameter(name), tensor.dequantize())
    before, biases = weights(work.module), "decoder.layers.0.ffn.up.bias"
    (line,) = carry_out(work, RETRAIN)
    rule = f"{len(tensors)} weights stay as they are: an earlier step rounded them"
    assert line == f"steps.0.retrain: {rule}"
    moved = changed(before, work.module)
    assert biases in moved
    assert not moved & set(tensors)


def test_training_through_fewer_bits_goes_on_from_more(work: Work) -> None:
    carry_out(work, {**QAT, "bits": 8}, RETRAIN)
    before = weights(work.module)
    assert carry_out(work, QAT, RETRAIN) == []
    tensors = work.compressed.quantized
    assert {one.format.bits for one in tensors.values()} == {4}
    for name, tensor in tensors.items():
        untrained = with_gain(quantize_tensor(before[name], tensor.format), before[name])
        assert not torch.equal(tensor.codes, untrained.codes)


@pytest.mark.parametrize("bits", [8, 4])
def test_norms_start_training_with_statistics_of_rounded_weights(
    bits: int, work: Work, bench: Bench
) -> None:
    step = {"kind": "quantize", "layers": "encoder.backbone", "bits": bits, "qat": True}
    carry_out(work, step, {**FEATURES, "lr": 1e-30, "batch_norm": "running"})
    assert work.compressed.quantized
    batch = next(work.calibration(1))
    wanted, found = (
        _normed(module, partial(work.task.features, module, batch))
        for module in (bench.dense.compressed().module, work.module)
    )
    assert wanted
    for name, one in wanted.items():
        torch.testing.assert_close(found[name].mean, one.mean, atol=1e-3, rtol=1e-3, msg=name)
        torch.testing.assert_close(found[name].variance, one.variance, atol=1e-3, rtol=0.01)


def _normed(model: nn.Module, forward: Callable[[], object]) -> dict[str, Statistics]:
    """Of what each norm gives."""
    found: dict[str, Statistics] = {}

    def see(name: str, _: nn.Module, __: object, maps: Tensor) -> None:
        found[name] = Statistics.of(maps)

    for name, module in model.eval().named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(partial(see, name))
    with torch.no_grad():
        forward()
    return found


def test_no_steps_train_through_nothing_and_it_is_said(work: Work, bench: Bench) -> None:
    whole = {**QAT, "layers": "**", "bits": 3}
    last = {**QAT, "layers": "decoder", "bits": 2}
    said = carry_out(work, whole, last, {**RETRAIN, "steps": 0})
    assert sum("untrained" in line for line in said) == 2
    assert len(said) == len(set(said))
    plain = Work(bench.dense.compressed(), bench)
    carry_out(plain, {**whole, "qat": False, "exclude": "decoder"}, {**last, "qat": False})
    assert changed(weights(work.module), plain.module) == set()


def test_codes_of_the_same_grid_stay_where_nothing_is_trained(work: Work) -> None:
    carry_out(work, {**QAT, "qat": False, "rounding": "compensated"})
    before = weights(work.module)
    carry_out(work, QAT, {**RETRAIN, "steps": 0})
    assert changed(before, work.module) == set()


def test_a_retrain_of_what_was_dropped_still_leaves_codes(work: Work) -> None:
    drop = {"kind": "drop_layers", "layers": "decoder.layers", "keep": 1, "select": "last"}
    carry_out(work, QAT, drop, {**RETRAIN, "train": "decoder.layers.0"})
    assert "decoder.embedding.weight" in work.compressed.quantized


def test_of_layers_that_were_dropped_nothing_is_left_to_round(work: Work) -> None:
    drop = {"kind": "drop_layers", "layers": "decoder.layers", "keep": 1, "select": "last"}
    carry_out(work, {**QAT, "layers": "decoder.layers.0"}, drop, {**RETRAIN, "steps": 0})
    assert work.compressed.quantized == {}


def test_training_goes_on_through_the_rounding_of_the_layers_that_are_left(work: Work) -> None:
    drop = {"kind": "drop_layers", "layers": "decoder.layers", "keep": 1, "select": "last"}
    before = weights(work.module)
    assert carry_out(work, QAT, drop, RETRAIN) == []
    coded = set(work.compressed.quantized)
    assert {name.split(".")[2] for name in coded if name.startswith("decoder.layers.")} == {"1"}
    after = work.module.state_dict()
    assert not any(torch.equal(before[name], after[name]) for name in coded)
    with torch.no_grad():
        assert work.forward(next(work.calibration(1))).loss.isfinite()


def test_of_two_steps_that_round_the_same_weights_the_last_decides(work: Work) -> None:
    first = {**QAT, "layers": "**", "bits": 3, "granularity": "channel"}
    last = {**QAT, "bits": 2}
    carry_out(work, first, last, RETRAIN)
    bits = {name: tensor.format.bits for name, tensor in work.compressed.quantized.items()}
    assert {bits[name] for name in bits if name.startswith("decoder.")} == {2}
    assert bits["encoder.projection.weight"] == 3


def test_a_regime_that_can_do_nothing_is_reported(work: Work) -> None:
    gamma = {"kind": "gamma_l1", "layers": "encoder.backbone"}
    (line,) = carry_out(work, gamma, {**RETRAIN, "exclude": "encoder.backbone"})
    assert line == "steps.1.retrain: gamma_l1 shrinks nothing: its BatchNorm layers are not trained"


def test_calibration_is_the_same_for_every_policy(work: Work, bench: Bench) -> None:
    other = Work(bench.dense.compressed(), bench)
    carry_out(other, {"kind": "drop_layers", "layers": "decoder.layers", "keep": 1})
    for mine, theirs in zip(work.calibration(3), other.calibration(3), strict=True):
        assert torch.equal(mine["images"], theirs["images"])
        assert torch.equal(mine["tokens"], theirs["tokens"])


def test_gradients_add_up_over_batches(work: Work) -> None:
    work.gradients(1)
    (weight,) = (p for n, p in work.module.named_parameters() if n == "encoder.projection.weight")
    assert weight.grad is not None
    once = weight.grad.clone()
    work.gradients(2)
    assert not torch.allclose(weight.grad, once)
    work.gradients(1)
    torch.testing.assert_close(weight.grad, once)


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


@pytest.mark.parametrize("rounding", ["nearest", "compensated"])
@pytest.mark.parametrize("layers", ["encoder", "decoder", "**"])
def test_rounding_runs_no_more_of_the_model_than_it_needs(
    work: Work, bench: Bench, layers: str, rounding: Rounding
) -> None:
    step = Quantize(layers=layers, bits=8, rounding=rounding)
    ran: list[object] = []
    work.module.get_submodule("decoder").register_forward_hook(lambda *_: ran.append(1))
    carry_out(work, step.model_dump())
    assert bool(ran) == (rounding == "compensated" and layers != "encoder")
    whole = Work(bench.dense.compressed(), bench)
    whole.module.eval()
    batches = list(whole.calibration(4 if rounding == "compensated" else 1))
    quantize_(whole.compressed, step, [partial(whole.forward, batch) for batch in batches])
    assert changed(weights(whole.module), work.module) == set()
