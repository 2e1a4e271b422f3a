"""A task of one's own: is the bar in a noisy picture upright?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from autocomp.tasks.arrays import ArrayTask


class Bars(ArrayTask):
    def __init__(self, side: int = 8, count: int = 48) -> None:
        self.side, self.count = side, count

    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(["train", "dev", "test"].index(split))
        images = rng.normal(size=(self.count, 1, self.side, self.side)).astype(np.float32)
        upright = rng.integers(2, size=self.count)
        for image, is_upright in zip(images, upright, strict=True):
            place = rng.integers(self.side)
            image[0][(slice(None), place) if is_upright else place] += 3
        return images, upright

    def net(self) -> nn.Module:
        conv, norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        return nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), nn.Linear(16 * self.side**2, 2))

    def loss(
        self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        return functional.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def scores(self, predictions: Any, targets: np.ndarray) -> dict[str, np.ndarray]:
        return {"accuracy": np.equal(predictions, targets)}
