"""Losses that pull a compressed model towards the dense one."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def logit_distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of softened logits (N, K), mean over N (1503.02531)."""
    log_student = functional.log_softmax(student.float() / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher.float() / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def feature_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of features (B, S, d) on a square grid, over the teacher's variance.

    1412.6550 without a regressor: compression keeps d. A teacher's grid of another size is
    resampled to the student's.
    """
    wanted = teacher.float()
    if student.shape[1] != wanted.shape[1]:
        wanted = _resampled(wanted, math.isqrt(student.shape[1]))
    variance = wanted.var(dim=(0, 1)).mean().clamp_min(torch.finfo(torch.float32).tiny)
    return functional.mse_loss(student.float(), wanted) / variance


def _resampled(features: Tensor, cells: int) -> Tensor:
    """(B, S, d) on a square grid -> (B, cells^2, d) of the same picture."""
    count, places, width = features.shape
    side = math.isqrt(places)
    maps = features.transpose(1, 2).reshape(count, width, side, side)
    maps = functional.interpolate(maps, (cells, cells), mode="bilinear", antialias=True)
    return maps.flatten(2).transpose(1, 2)


def hidden_distillation(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    """Sum over the layers both models have, by name, of the mean squared error of their states.

    A state whose shape has changed (its width was pruned) has no counterpart and is left out.
    """
    terms = [
        functional.mse_loss(state.float(), teacher[name].float())
        for name, state in student.items()
        if name in teacher and teacher[name].shape == state.shape
    ]
    return torch.stack(terms).sum() if terms else torch.zeros(())
