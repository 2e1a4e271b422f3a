"""A model on its way through a policy, and the examples it is run on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from autocomp.bench import Bench
from autocomp.compress.formats import Compressed
from autocomp.compress.watching import watching
from autocomp.retrain.regimes import Regime
from autocomp.tasks.base import Batch, Task

CALIBRATION_BATCH_SIZE = 32


@dataclass
class Work:
    """A model on its way through a policy; `regimes` wait for the next retrain.

    `task` has images of the size the model takes; `image_size` is None while it is the dense one's.
    """

    compressed: Compressed
    bench: Bench
    task: Task = field(init=False)
    image_size: int | None = None
    regimes: list[Regime] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.task = self.bench.task

    @property
    def module(self) -> nn.Module:
        return self.compressed.module

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def calibration(self, count: int) -> Iterator[Batch]:
        """`count` batches of the train split, the same for every policy, pixels included."""
        names = [name for name, _ in self.module.named_parameters()]
        batches = self.task.training_batches(
            [self.module], CALIBRATION_BATCH_SIZE, names, self.bench.seed
        )
        return (batch for (batch,) in itertools.islice(batches, count))

    def forward(self, batch: Batch) -> object:
        return self.task.forward(self.module, batch)

    def gradients(self, count: int) -> None:
        """Forward and backward over the calibration batches; gradients add up in the weights."""
        self.module.eval().zero_grad(set_to_none=True)
        for batch in self.calibration(count):
            self.task.forward(self.module, batch).loss.backward()

    def runner(self, needed: Set[nn.Module], batch: Batch) -> Callable[[Batch], object]:
        """Runs the model on a batch: its first part alone where that has all the modules needed."""
        is_enough = needed <= self._first_part(batch)
        return partial(self.task.features, self.module) if is_enough else self.forward

    def _first_part(self, batch: Batch) -> set[nn.Module]:
        """The modules that take part in the features of a batch."""
        seen: set[nn.Module] = set()
        hooks = [
            module.register_forward_pre_hook(lambda module, _: seen.add(module))
            for module in self.module.eval().modules()
        ]
        with watching(hooks):
            self.task.features(self.module, {name: rows[:1] for name, rows in batch.items()})
        return seen
