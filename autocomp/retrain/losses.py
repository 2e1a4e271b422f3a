"""Losses that pull a compressed model towards the dense one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def logit_distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of softened logits (N, K), mean over N (1503.02531)."""
    log_student = functional.log_softmax(student.float() / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher.float() / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


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
