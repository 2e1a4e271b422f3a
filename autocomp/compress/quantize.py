"""Store linear, embedding and convolution weights at 16, 8 or 4 bits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autocomp.compress.correction import Forward, channel_means, restore_means_
from autocomp.compress.formats import HALF_BITS, Compressed, LayerFormat, quantize_tensor
from autocomp.errors import PolicyError, nearest
from autocomp.fields import value_for
from autocomp.patterns import matching
from autocomp.policy import Quantize

DENSE_BITS = 32
WHOLE_BYTE = 8
FEWEST_INPUTS = 32
"""A convolution of fewer inputs to an output channel keeps 8 bits."""
Layer = nn.Linear | nn.Embedding | nn.Conv2d


def quantize_(compressed: Compressed, step: Quantize, forward: Forward | None = None) -> list[str]:
    """Round the matched weights to their codes, in place; returns what was skipped, and why.

    The module's weights become the values that the codes stand for, so it computes what ships. A
    weight shared by two layers goes by the name of the first. With `forward`, which runs the model
    on a batch, rounded convolutions keep the means of what they compute.
    """
    layers = quantizable_layers(compressed.module)
    names = matching(layers, step.layers, step.exclude)
    if not names:
        close = nearest(step.layers[0], layers)
        raise PolicyError(
            f"quantize.layers: must match a layer it can act on, but {list(step.layers)} "
            f"matches none; nearest: {', '.join(close) or 'none'}"
        )
    widths = {name: value_for(name, step.bits, DENSE_BITS) for name in names}
    convolutions = [name for name in names if isinstance(layers[name], nn.Conv2d)]
    if forward is None or all(widths[name] >= HALF_BITS for name in convolutions):
        return _round(compressed, step, layers, widths)
    means = channel_means(compressed.module, forward)
    skipped = _round(compressed, step, layers, widths)
    restore_means_(compressed.module, forward, means)
    return skipped


def _round(
    compressed: Compressed, step: Quantize, layers: Mapping[str, Layer], widths: Mapping[str, int]
) -> list[str]:
    narrow: list[str] = []
    for name, bits in widths.items():
        if bits == DENSE_BITS:
            continue
        if bits == HALF_BITS:
            _halve(compressed, f"{name}.weight", layers[name].weight)
            continue
        if bits < WHOLE_BYTE and _is_narrow(layers[name]):
            narrow.append(name)
            bits = WHOLE_BYTE
        weight = layers[name].weight
        quantized = quantize_tensor(weight, _format(layers[name], bits, step))
        compressed.quantized[f"{name}.weight"] = quantized
        compressed.halved.discard(f"{name}.weight")
        with torch.no_grad():
            weight.copy_(quantized.dequantize())
    if not narrow:
        return []
    return [
        f"{narrow[0]} and {len(narrow) - 1} more convolutions have fewer than {FEWEST_INPUTS} "
        f"inputs to a channel, too few for so few bits, and keep {WHOLE_BYTE}"
    ]


def _is_narrow(layer: Layer) -> bool:
    """True for a depthwise convolution, say: it is small, and its channels have no redundancy."""
    return isinstance(layer, nn.Conv2d) and layer.weight[0].numel() < FEWEST_INPUTS


def _halve(compressed: Compressed, name: str, weight: Tensor) -> None:
    compressed.halved.add(name)
    compressed.quantized.pop(name, None)
    largest = torch.finfo(torch.float16).max
    with torch.no_grad():
        weight.copy_(weight.clamp(-largest, largest).half())


def _format(layer: nn.Module, bits: int, step: Quantize) -> LayerFormat:
    if isinstance(layer, nn.Conv2d):
        return LayerFormat(bits=bits, ranges=step.ranges)
    return LayerFormat(bits=bits, group_size=step.group_size)


def quantizable_layers(model: nn.Module) -> dict[str, Layer]:
    """The linear, embedding and convolution layers by name, the first of those sharing a weight."""
    first_names = {name for name, _ in model.named_parameters()}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Layer) and f"{name}.weight" in first_names
    }
