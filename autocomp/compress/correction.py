"""Bias correction: rounded weights may blur activations, but must not shift their means.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (1906.04721),
here with the means measured on data. Depthwise convolutions need it: a few weights make a channel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial

from torch import Tensor, nn

from autocomp.compress.watching import before, watching

Forward = Callable[[], object]
Normalisation = nn.modules.batchnorm._BatchNorm


def shifted_tensors(model: nn.Module) -> dict[str, str]:
    """The layers that can be corrected, and of each the tensor that its correction shifts."""
    shifted: dict[str, str] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            shifted[name] = f"{name}.running_mean"
        elif isinstance(layer, nn.Conv2d) and layer.bias is not None:
            shifted[name] = f"{name}.bias"
    return shifted


def channel_means(
    model: nn.Module, forward: Forward, layers: Collection[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The mean (C,) of each channel that enters a normalisation or leaves a convolution.

    `layers` are some of `shifted_tensors`; `forward` runs the model, in evaluation mode, on one
    batch. Second are those without: what would be shifted acts at more than one place of the model,
    and no shift brings back the means of all.
    """
    means: dict[str, Tensor] = {}
    shifts: Counter[int] = Counter()

    def see(name: str, layer: nn.Module, maps: Tensor) -> None:
        means[name] = _mean(maps)
        shifts[id(_shifted(layer))] += 1

    with _hooked(model, layers, see):
        forward()
    several = [name for name in means if shifts[id(_shifted(model.get_submodule(name)))] > 1]
    return {name: mean for name, mean in means.items() if name not in several}, several


def restore_means_(model: nn.Module, forward: Forward, means: Mapping[str, Tensor]) -> None:
    """Shift the layers of `means` so that the same `forward` gives these again, one by one.

    A normalisation subtracts another mean, a convolution adds another bias. Each layer sees what
    those before it give once they are corrected.
    """

    def correct(name: str, layer: nn.Module, maps: Tensor) -> None:
        shift = _mean(maps) - means[name]
        if isinstance(layer, Normalisation):
            _shifted(layer).add_(shift)
        else:
            _shifted(layer).sub_(shift)
            maps -= shift.view(-1, 1, 1)

    with _hooked(model, means, correct):
        forward()


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


def _mean(maps: Tensor) -> Tensor:
    return maps.mean(dim=(0, 2, 3))
