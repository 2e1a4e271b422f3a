"""What training does to its images so that no two passes see the same; evaluation does nothing."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from autocomp.decisions import Decision


class Augmentation(Decision):
    """Shifts by up to `shift` of a side, black beyond the edge, and mirrors half of the images.

    The defaults are those of section 4.2 of 1512.03385: 4 pixels of 32.
    """

    shift: float = Field(default=0.125, ge=0, le=0.5)
    flip: bool = True


def augmented(images: np.ndarray, draws: NDArray[np.float64], settings: Augmentation) -> Tensor:
    """A changed copy of images (B, H, W, 3) uint8, as `draws` (B, 3) in [0, 1) decide.

    The same draws move images of another size by the same share of a side.
    """
    count, side, _, _ = images.shape
    margin = round(settings.shift * side)
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    starts = (draws[:, :2] * (2 * margin + 1)).astype(np.int64)  # (B, 2)
    changed = np.empty_like(images)
    for index in range(count):
        top, left = starts[index]
        changed[index] = padded[index, top : top + side, left : left + side]
        if settings.flip and draws[index, 2] < 0.5:
            changed[index] = changed[index, :, ::-1].copy()
    return torch.from_numpy(changed)
