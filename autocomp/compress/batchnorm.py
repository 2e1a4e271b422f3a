"""BatchNorm statistics, measured again after channels were removed or weights changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autocomp.errors import DataError

Batch = TypeVar("Batch")


def running_norms(module: nn.Module) -> set[_BatchNorm]:
    """The normalisations that keep running statistics."""
    return {
        layer
        for layer in module.modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats
    }


@torch.no_grad()
def recalibrate_(
    module: nn.Module, forward: Callable[[Batch], Any], batches: Iterable[Batch]
) -> None:
    """Replace running means and variances by their plain averages over `batches`.

    `forward` runs whatever reaches the layers of `module` on one batch. Only BatchNorm layers are
    in training mode meanwhile, so dropout stays off; no parameter changes, and modes and momenta
    are as before afterwards. Every batch counts the same, so they should be of one size. Raises
    `DataError` if there is no batch, and leaves the statistics alone then.
    """
    norms = running_norms(module)
    if not norms:
        return
    iterator = iter(batches)
    try:
        first = next(iterator)
    except StopIteration:
        raise DataError("batches: must hold at least one batch, but got none") from None
    modes = {layer: layer.training for layer in module.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    try:
        module.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()
        forward(first)
        for batch in iterator:
            forward(batch)
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for layer, training in modes.items():
            layer.training = training
