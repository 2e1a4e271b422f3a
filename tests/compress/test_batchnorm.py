"""Recalibrated statistics are those of the data, and nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from autocomp.compress.batchnorm import recalibrate_
from autocomp.errors import DataError


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, momentum=0.3), nn.Dropout(0.9), nn.ReLU()
    )


def batches(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, 8, 8, generator=generator) * 3 + 1 for _ in range(count)]


def test_one_batch_gives_its_exact_statistics(model: nn.Sequential) -> None:
    (batch,) = batches(1)
    recalibrate_(model, model, [batch])
    with torch.no_grad():
        values = model[0](batch).transpose(0, 1).flatten(1)  # (6, samples)
    torch.testing.assert_close(model[1].running_mean, values.mean(1))
    torch.testing.assert_close(model[1].running_var, values.var(1))


def test_several_batches_are_averaged(model: nn.Sequential) -> None:
    each = []
    for batch in batches(3):
        recalibrate_(model, model, [batch])
        each.append(model[1].running_mean.clone())
    recalibrate_(model, model, iter(batches(3)))
    torch.testing.assert_close(model[1].running_mean, torch.stack(each).mean(0))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_parameters_modes_and_momentum_are_kept(model: nn.Sequential, training: bool) -> None:
    model.train(training)
    model[1].eval()
    before = copy.deepcopy(model)
    recalibrate_(model, model, batches(2))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before.get_parameter(name))
        assert parameter.grad is None
    assert [layer.training for layer in model] == [layer.training for layer in before]
    assert model[1].momentum == 0.3


def test_dropout_stays_off(model: nn.Sequential) -> None:
    model.train()
    seen = []
    recalibrate_(model, lambda batch: seen.append(model(batch)), batches(1) * 2)
    assert torch.equal(seen[0], seen[1])


def test_only_norms_of_the_module_change(model: nn.Sequential) -> None:
    whole = nn.Sequential(model, nn.BatchNorm2d(6))
    whole.eval()
    recalibrate_(model, whole, batches(1))
    assert torch.equal(whole[1].running_mean, torch.zeros(6))


def test_no_batch_is_an_error_and_changes_nothing(model: nn.Sequential) -> None:
    model[1].running_mean.fill_(7.0)
    with pytest.raises(DataError, match="at least one batch"):
        recalibrate_(model, model, [])
    assert torch.equal(model[1].running_mean, torch.full((6,), 7.0))


def test_no_batchnorm_needs_no_batch() -> None:
    recalibrate_(nn.Linear(2, 2), lambda batch: batch, [])
