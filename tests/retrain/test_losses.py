"""Distillation losses at known values."""

from __future__ import annotations

import math

import pytest
import torch

from autocomp.retrain.losses import hidden_distillation, logit_distillation


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_equal_logits_cost_nothing(temperature: float) -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    shifted = logits + 3
    assert logit_distillation(logits, shifted, temperature).item() == pytest.approx(0, abs=1e-5)


def test_divergence_of_two_coins() -> None:
    teacher = torch.tensor([[math.log(3.0), 0.0]])  # 3/4 and 1/4
    student = torch.zeros(1, 2)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert logit_distillation(student, teacher, 1.0).item() == pytest.approx(expected)
    hot = logit_distillation(2 * student, 2 * teacher, 2.0).item()
    assert hot == pytest.approx(4 * expected)


def test_rows_are_averaged() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 7, generator=generator)
    each = [logit_distillation(student[i : i + 1], teacher[i : i + 1], 2.0) for i in range(4)]
    both = logit_distillation(student, teacher, 2.0)
    torch.testing.assert_close(both, torch.stack(each).mean())


def test_hidden_states_pair_by_name() -> None:
    ones, zeros = torch.ones(2, 3), torch.zeros(2, 3)
    teacher = {"layers.0": ones, "layers.1": 5 * ones, "layers.2": zeros}
    student = {"layers.0": zeros, "layers.2": 2 * ones}
    assert hidden_distillation(student, teacher).item() == pytest.approx(1 + 4)


def test_a_state_of_another_shape_is_left_out() -> None:
    student = {"a": torch.ones(2, 3), "b": torch.ones(2, 2), "c": torch.ones(1)}
    teacher = {"a": torch.zeros(2, 3), "b": torch.zeros(2, 3)}
    assert hidden_distillation(student, teacher).item() == 1
    assert hidden_distillation({}, teacher).item() == 0
