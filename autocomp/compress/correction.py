"""Bias correction: rounded weights may blur activations, but must not shift their means.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (1906.04721),
here with the means measured on data. Depthwise convolutions need it: a few weights make a channel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autocomp.compress.watching import before, watching

Forward = Callable[[], object]
Normalisation = nn.modules.batchnorm._BatchNorm
MOST_SPREAD = 4.0
"""Either way: a channel of which rounding leaves next to nothing would be all noise."""


class Statistics(NamedTuple):
    """Of each channel (C,) of maps."""

    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, maps: Tensor) -> Statistics:
        """Of maps (B, C, H, W)."""
        variance, mean = torch.var_mean(maps, dim=(0, 2, 3), correction=0)
        return cls(mean, variance)

    def spread(self, wanted: Statistics) -> Tensor:
        """How many times as much as `wanted` each channel varies."""
        tiny = torch.finfo(self.variance.dtype).tiny
        ratio = (self.variance + tiny) / (wanted.variance + tiny)
        return ratio.sqrt().clamp(1 / MOST_SPREAD, MOST_SPREAD)


def shifted_tensors(model: nn.Module) -> dict[str, str]:
    """The layers that can be corrected, and of each the tensor that its correction shifts."""
    shifted: dict[str, str] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            shifted[name] = f"{name}.running_mean"
        elif isinstance(layer, nn.Conv2d) and layer.bias is not None:
            shifted[name] = f"{name}.bias"
    return shifted


def channel_statistics(
    model: nn.Module, forward: Forward, layers: Collection[str]
) -> tuple[dict[str, Statistics], list[str]]:
    """Of the channels that enter a normalisation or leave a convolution.

    `layers` are some of `shifted_tensors`; `forward` runs the model, in evaluation mode, on one
    batch. Second are those without: what would be shifted acts at more than one place of the model,
    and no shift brings back the means of all.
    """
    found: dict[str, Statistics] = {}
    shifts: Counter[int] = Counter()

    def see(name: str, layer: nn.Module, maps: Tensor) -> None:
        found[name] = Statistics.of(maps)
        shifts[id(_shifted(layer))] += 1

    with _hooked(model, layers, see):
        forward()
    several = [name for name in found if shifts[id(_shifted(model.get_submodule(name)))] > 1]
    return {name: one for name, one in found.items() if name not in several}, several


def restore_(
    model: nn.Module, forward: Forward, wanted: Mapping[str, Statistics], spread: bool = False
) -> None:
    """Shift the layers of `wanted` so that the same `forward` gives these means again, one by one.

    A normalisation subtracts another mean, a convolution adds another bias. Each layer sees what
    those before it give once they are corrected. With `spread` normalisations also divide by as
    much more as their channels now vary more.
    """

    def correct(name: str, layer: nn.Module, maps: Tensor) -> None:
        found = Statistics.of(maps)
        shift = found.mean - wanted[name].mean
        if not isinstance(layer, Normalisation):
            _shifted(layer).sub_(shift)
            maps -= shift.view(-1, 1, 1)
        elif spread:
            _renormalise_(layer, found, wanted[name])
        else:
            _shifted(layer).add_(shift)

    with _hooked(model, wanted, correct):
        forward()


def _renormalise_(layer: Normalisation, found: Statistics, wanted: Statistics) -> None:
    """Let `layer` make of maps as `found` the means and, as far as it can, the spreads of before.

    Those it made of maps as `wanted`.
    """
    mean, variance = _shifted(layer), layer.running_var
    assert variance is not None
    divided = variance + layer.eps
    # none divides by less than the root of eps
    anew = (divided * found.spread(wanted).square()).clamp(min=layer.eps)
    mean.copy_(found.mean - (wanted.mean - mean) * (anew / divided).sqrt())
    variance.copy_(anew - layer.eps)


def _hooked(
    model: nn.Module, layers: Iterable[str], visit: Callable[[str, nn.Module, Tensor], None]
) -> AbstractContextManager[None]:
    """Let `visit(name, layer, maps)` see maps (B, C, H, W) before a norm, after a convolution."""
    handles = []
    for name in layers:
        layer = model.get_submodule(name)
        see = partial(visit, name, layer)
        if isinstance(layer, Normalisation):
            handles.append(before(layer, see))
        else:
            handles.append(layer.register_forward_hook(lambda _, __, maps, see=see: see(maps)))
    return watching(handles)


def _shifted(layer: nn.Module) -> Tensor:
    """What a correction shifts."""
    shifted = layer.running_mean if isinstance(layer, Normalisation) else layer.bias
    assert isinstance(shifted, Tensor)
    return shifted
