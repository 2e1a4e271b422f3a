"""Steps that train through the rounding: where it starts, what it leaves, what is untrained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tiny_models import carry_out, changed, weights
from torch import Tensor, nn

from autocomp.apply import DROPPED
from autocomp.bench import Bench
from autocomp.compress.correction import Statistics
from autocomp.compress.formats import quantize_tensor, with_gain
from autocomp.work import Work

pytestmark = pytest.mark.usefixtures("tiny")
RETRAIN = {"kind": "retrain", "steps": 2, "batch_size": 16, "precision": "fp32"}
FEATURES = {**RETRAIN, "loss": "features", "train": "encoder"}
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


def qat(layers: str, bits: int) -> dict[str, Any]:
    return {**QAT, "layers": layers, "bits": bits}


@pytest.mark.parametrize(
    "steps",
    [
        [qat("encoder.backbone", 8)],
        [qat("encoder.backbone", 4)],
        [qat("encoder.backbone.layers.0", 4), qat("encoder.backbone.layers.1", 5)],
    ],
    ids=["8 bits", "4 bits", "two steps"],
)
def test_norms_start_training_with_statistics_of_rounded_weights(
    steps: list[dict[str, Any]], work: Work, bench: Bench
) -> None:
    carry_out(work, *steps, {**FEATURES, "lr": 1e-30, "batch_norm": "running"})
    assert {one.format.bits for one in work.compressed.quantized.values()} >= {
        step["bits"] for step in steps
    }
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


def test_norms_that_cannot_start_so_are_named(work: Work) -> None:
    block = work.module.get_submodule("encoder.backbone.layers.0")
    block.bn2.running_mean = block.bn1.running_mean
    lines = carry_out(work, qat("encoder.backbone", 8), {**FEATURES, "batch_norm": "running"})
    assert [line.split(", for ")[0] for line in lines] == [
        "steps.1.retrain: encoder.backbone.layers.0.bn1 and 1 more: "
        "means are not restored after rounding"
    ]


@pytest.mark.parametrize(
    "step", [QAT, {**QAT, "bits": 2, "granularity": "channel"}], ids=["groups", "channels"]
)
def test_what_a_retrain_leaves_alone_is_rounded_as_without(
    step: dict[str, Any], work: Work, bench: Bench
) -> None:
    (line,) = carry_out(work, step, {**RETRAIN, "train": "encoder"})
    assert line.endswith("20 more untrained: no retrain trains them")
    plain = Work(bench.dense.compressed(), bench)
    carry_out(plain, {**step, "qat": False})
    assert work.compressed.quantized.keys() == plain.compressed.quantized.keys()
    for name, tensor in plain.compressed.quantized.items():
        assert torch.equal(work.compressed.quantized[name].dequantize(), tensor.dequantize())


def test_codes_that_a_second_retrain_leaves_alone_stay(work: Work) -> None:
    carry_out(work, qat("**", 4), RETRAIN)
    before = weights(work.module)
    carry_out(work, qat("**", 4), {**RETRAIN, "train": "decoder"})
    moved = changed(before, work.module)
    assert {name.partition(".")[0] for name in moved} == {"decoder"}


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
    lines = carry_out(work, QAT, drop, {**RETRAIN, "train": "decoder.layers.0"})
    assert lines[0] == f"steps.2.retrain: {DROPPED}"
    assert lines[1].endswith("more untrained: no retrain trains them")
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
