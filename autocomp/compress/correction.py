"""Bias correction: rounded weights may blur activations, but must not shift their means.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (1906.04721),
here with the means measured on data. Depthwise convolutions need it: a few weights make a channel.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from torch import Tensor, nn

from autocomp.compress.watching import watching

Forward = Callable[[], object]
Normalisation = nn.modules.batchnorm._BatchNorm


def channel_means(model: nn.Module, forward: Forward) -> dict[str, Tensor]:
    """The mean (C,) of each channel that enters a normalisation or leaves a biased convolution.

    `forward` runs the model, in evaluation mode, on one batch.
    """
    means: dict[str, Tensor] = {}
    with _hooked(model, lambda name, _, maps: means.__setitem__(name, _mean(maps))):
        forward()
    return means


def restore_means_(model: nn.Module, forward: Forward, means: dict[str, Tensor]) -> None:
    """Shift `model` so that the same `forward` gives these means again, layer after layer.

    A normalisation subtracts another mean, a convolution adds another bias. Each layer sees what
    those before it give once they are corrected.
    """

    def correct(name: str, layer: nn.Module, maps: Tensor) -> None:
        shift = _mean(maps) - means[name]
        if isinstance(layer, Normalisation):
            assert layer.running_mean is not None
            layer.running_mean += shift
        else:
            assert isinstance(layer.bias, Tensor)
            layer.bias -= shift
            maps -= shift.view(-1, 1, 1)

    with _hooked(model, correct):
        forward()


def _hooked(
    model: nn.Module, visit: Callable[[str, nn.Module, Tensor], None]
) -> AbstractContextManager[None]:
    """Let `visit(name, layer, maps)` see maps (B, C, H, W) before or after each such layer."""
    handles = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            handles.append(
                layer.register_forward_pre_hook(
                    lambda layer, inputs, name=name: visit(name, layer, inputs[0])
                )
            )
        elif isinstance(layer, nn.Conv2d) and layer.bias is not None:
            handles.append(
                layer.register_forward_hook(
                    lambda layer, _, output, name=name: visit(name, layer, output)
                )
            )
    return watching(handles)


def _mean(maps: Tensor) -> Tensor:
    return maps.mean(dim=(0, 2, 3))
