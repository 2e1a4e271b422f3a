"""What a step leaves attached to act during the next retrain.

A regime may own parameters, add to the loss, act after each optimiser step, and finish by leaving
a plain model behind.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from autocomp.errors import PolicyError
from autocomp.patterns import matching
from autocomp.policy import GammaL1


class Regime(Protocol):
    """Hooks of the training loop; `progress` runs from 0 to 1 over the retrain."""

    def idle(self, trainable: Collection[str]) -> str | None:
        """What it cannot do while `trainable` is trained, and why; None if it can do all."""

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of its own, to be trained with the model's."""

    def active(self, model: nn.Module) -> AbstractContextManager[None]:
        """What holds while `model` runs forward."""

    def loss(self, model: nn.Module, progress: float) -> Tensor | None:
        """A term to add to the loss."""

    def after_step(self, model: nn.Module, progress: float) -> None:
        """Called after each optimiser step."""

    def finish(self, model: nn.Module) -> None:
        """Called after the last step; leaves a plain model."""


@dataclass(frozen=True)
class ShrinkGamma:
    """Adds strength x sum abs(gamma): its gradient is strength x sign(gamma) (1708.06519)."""

    names: Sequence[str]
    strength: float

    def idle(self, trainable: Collection[str]) -> str | None:
        if any(f"{name}.weight" in trainable for name in self.names):
            return None
        return "gamma_l1 shrinks nothing: its BatchNorm layers are not trained"

    def parameters(self) -> list[nn.Parameter]:
        return []

    def active(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def loss(self, model: nn.Module, progress: float) -> Tensor | None:
        own = dict(model.named_parameters())
        names = [f"{name}.weight" for name in self.names]
        # a later step may have dropped the layers of some
        sums = [own[name].abs().sum() for name in names if name in own]
        return self.strength * torch.stack(sums).sum() if sums else None

    def after_step(self, model: nn.Module, progress: float) -> None:
        return None

    def finish(self, model: nn.Module) -> None:
        return None


def gamma_l1(model: nn.Module, step: GammaL1) -> ShrinkGamma:
    """The regime that a `gamma_l1` step attaches to the model's matched BatchNorm layers."""
    known = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    names = matching(known, step.layers, step.exclude)
    if not names:
        raise PolicyError(
            f"gamma_l1.layers: must match a BatchNorm layer, but {list(step.layers)} matches none"
        )
    return ShrinkGamma(names, step.strength)
