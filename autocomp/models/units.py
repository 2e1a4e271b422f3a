"""Hidden units: what a block can lose without its inputs and outputs changing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import nn


class UnitEnd(NamedTuple):
    """Where a block's units lie in a linear layer: along its outputs (axis 0) or inputs (axis 1).

    They lie there `blocks` times, one after the other: four times for the gates of an LSTM.
    """

    linear: nn.Linear
    axis: int
    blocks: int = 1

    @property
    def units(self) -> int:
        return int(self.linear.weight.shape[self.axis]) // self.blocks


class HiddenUnits(nn.Module, ABC):
    """A block that can be made narrower; the number of its units is read off its weights."""

    @abstractmethod
    def unit_ends(self) -> list[UnitEnd]:
        """Every layer that a unit is a part of."""
