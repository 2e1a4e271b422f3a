"""The examples that steps are judged by: the same for every policy, and no more run than needed."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tiny_models import carry_out, changed, weights

from autocomp.bench import Bench
from autocomp.compress.quantize import quantize_
from autocomp.rounding import Quantize, Rounding
from autocomp.work import Work

pytestmark = pytest.mark.usefixtures("tiny")
RETRAIN = {"kind": "retrain", "steps": 2, "batch_size": 16, "precision": "fp32"}


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
