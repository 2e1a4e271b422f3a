"""Distillation losses at known values."""

from __future__ import annotations

import math

import pytest
import torch

from autocomp.retrain.losses import (
    feature_distillation,
    hidden_distillation,
    logit_distillation,
)


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


def test_features_cost_their_error_in_variances_of_the_teacher() -> None:
    teacher = torch.randn(4, 9, 5, generator=torch.Generator().manual_seed(0))
    assert feature_distillation(teacher, teacher).item() == 0
    variance = teacher.var(dim=(0, 1)).mean().item()
    assert feature_distillation(teacher + 2, teacher).item() == pytest.approx(4 / variance)
    larger = feature_distillation(10 * (teacher + 2), 10 * teacher).item()
    assert larger == pytest.approx(4 / variance, rel=1e-4)


def test_a_larger_grid_of_features_is_resampled() -> None:
    teacher = torch.arange(3.0).repeat_interleave(3).view(1, 9, 1)  # rows 0, 1, 2
    student = torch.tensor([0.3, 0.3, 1.7, 1.7]).view(1, 4, 1)
    coarse = feature_distillation(student, teacher).item() * teacher.var(dim=(0, 1)).item()
    assert coarse < 0.05
    assert feature_distillation(student.flip(1), teacher).item() > 1
