"""Bias correction: rounded weights may blur activations, but must not shift their means.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (1906.04721),
here with the means measured on data. Depthwise convolutions need it: a few weights make a channel.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager

from torch import Tensor, nn

from autocomp.compress.watching import watching

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


def channel_means(model: nn.Module, forward: Forward, layers: Collection[str]) -> dict[str, Tensor]:
    """The mean (C,) of each channel that enters a normalisation or leaves a convolution.

    `layers` are some of `shifted_tensors`; `forward` runs the model, in evaluation mode, on one
    batch.
    """
    means: dict[str, Tensor] = {}
    with _hooked(model, layers, lambda name, _, maps: means.__setitem__(name, _mean(maps))):
        forward()
    return means


def restore_means_(model: nn.Module, forward: Forward, means: Mapping[str, Tensor]) -> None:
    """Shift the layers of `means` so that the same `forward` gives these again, one by one.

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

    with _hooked(model, means, correct):
        forward()


def _hooked(
    model: nn.Module, layers: Iterable[str], visit: Callable[[str, nn.Module, Tensor], None]
) -> AbstractContextManager[None]:
    """Let `visit(name, layer, maps)` see maps (B, C, H, W) before a norm, after a convolution."""
    handles = []
    for name in layers:
        layer = model.get_submodule(name)
        if isinstance(layer, Normalisation):
            handles.append(
                layer.register_forward_pre_hook(
                    lambda layer, inputs, name=name: visit(name, layer, inputs[0])
                )
            )
        else:
            handles.append(
                layer.register_forward_hook(
                    lambda layer, _, output, name=name: visit(name, layer, output)
                )
            )
    return watching(handles)


def _mean(maps: Tensor) -> Tensor:
    return maps.mean(dim=(0, 2, 3))
