"""LSTM and GRU cells made of linear layers, so that whatever compresses those compresses them.

Gates lie one after the other along the outputs of `input` and `hidden`. `forward` takes what
`input` made of a step: for a whole sequence that is computed at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from autocomp.models.units import UnitEnd

Memory = tuple[Tensor, ...]
"""What a cell remembers, each (B, units); the first is its output."""


class Cell(nn.Module, ABC):
    """`gates` linear maps of the input (B, width) and of the output before; `units` of them."""

    gates: int
    names: tuple[str, ...]
    """What the parts of its memory are called."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, self.gates * units)
        self.hidden = nn.Linear(units, self.gates * units)

    @abstractmethod
    def forward(self, drive: Tensor, memory: Memory) -> Memory:
        """The memory after a step whose input part is `drive` (B, gates * units)."""

    def unit_ends(self) -> list[UnitEnd]:
        blocks = self.gates
        rows = [UnitEnd(self.input, 0, blocks), UnitEnd(self.hidden, 0, blocks)]
        return [*rows, UnitEnd(self.hidden, 1)]


class LstmCell(Cell):
    """Input, forget, candidate and output gates (Hochreiter and Schmidhuber, 1997)."""

    gates = 4
    names = ("h", "c")

    def __init__(self, width: int, units: int) -> None:
        super().__init__(width, units)
        with torch.no_grad():
            # what is not forgotten at first can be learnt (Jozefowicz et al., 2015)
            self.input.bias[units : 2 * units] += 1

    def forward(self, drive: Tensor, memory: Memory) -> Memory:
        output, carried = memory
        enter, forget, candidate, leave = (drive + self.hidden(output)).chunk(4, dim=1)
        carried = forget.sigmoid() * carried + enter.sigmoid() * candidate.tanh()
        return leave.sigmoid() * carried.tanh(), carried


class GruCell(Cell):
    """Reset, update and candidate (1406.1078), reset after the product as in cuDNN."""

    gates = 3
    names = ("h",)

    def forward(self, drive: Tensor, memory: Memory) -> Memory:
        (output,) = memory
        reset_in, update_in, new_in = drive.chunk(3, dim=1)
        reset_h, update_h, new_h = self.hidden(output).chunk(3, dim=1)
        new = (new_in + (reset_in + reset_h).sigmoid() * new_h).tanh()
        update = (update_in + update_h).sigmoid()
        return (new + update * (output - new),)


CELLS: dict[str, Callable[[int, int], Cell]] = {"lstm": LstmCell, "gru": GruCell}
