"""Store linear, embedding and convolution weights in few bits."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from dataclasses import replace

from torch import Tensor, nn

from autocomp.compress.channel_check import is_depthwise
from autocomp.compress.compensation import (
    MOST_INPUTS,
    Moments,
    batched,
    compensate,
    is_compensable,
    moments,
)
from autocomp.compress.correction import (
    Forward,
    Statistics,
    channel_statistics,
    restore_,
    shifted_tensors,
)
from autocomp.compress.formats import (
    FLOAT_BITS,
    HALF_BITS,
    Compressed,
    LayerFormat,
    QuantizedTensor,
    quantize_tensor,
    with_gain,
)
from autocomp.errors import PolicyError, first_of, nearest
from autocomp.fields import value_for
from autocomp.patterns import matching
from autocomp.rounding import FixedPoint, Quantize

WHOLE_BYTE = 8
FEWEST_INPUTS = 32
"""A convolution of fewer inputs to an output channel keeps 8 bits."""
HALVED = "fp16 numbers have no codes, so rounding, scheme and granularity say nothing of them"
AS_THEY_RUN = "for only convolutions have ranges that are known before they run"
Layer = nn.Linear | nn.Embedding | nn.Conv2d
Formats = dict[str, LayerFormat]
"""Of layers by name: those of a step that changes them."""


def quantize_(
    compressed: Compressed, step: Quantize, forwards: Sequence[Forward] = ()
) -> list[str]:
    """Round the matched weights to their codes, in place; returns what was skipped, and why.

    The module's weights become the values that the codes stand for, so it computes what ships. A
    weight shared by two layers goes by the name of the first. Each of `forwards` runs the model on
    a batch. With them, rounded convolutions keep the means of what they compute; compensated
    rounding needs them.
    """
    formats, skipped = layer_formats(compressed.module, step)
    skipped += _taken_over(compressed, formats)
    if not forwards or not shifts_means(compressed.module, formats):
        return skipped + _round(compressed, formats, forwards, ())
    found, left = restorable(compressed, forwards[0])
    skipped += _round(compressed, formats, forwards, found)
    restore_(compressed.module, forwards[0], found)
    return skipped + left


def shifts_means(model: nn.Module, formats: Formats) -> bool:
    """Whether convolutions, whose means can be restored, are given codes."""
    layers = quantizable_layers(model)
    return any(
        fmt.bits < HALF_BITS and isinstance(layers.get(name), nn.Conv2d)
        for name, fmt in formats.items()
    )


def restorable(compressed: Compressed, forward: Forward) -> tuple[dict[str, Statistics], list[str]]:
    """Statistics of the channels that can be restored after rounding; which cannot, and why."""
    shifted = shifted_tensors(compressed.module)
    fixed = [name for name, tensor in shifted.items() if tensor in compressed.fixed]
    free = [name for name in shifted if name not in fixed]
    found, several = channel_statistics(compressed.module, forward, free)
    reasons = {
        "what would restore them is in fixed point": fixed,
        "what would restore them acts in more than one place": several,
    }
    return found, [
        f"{first_of(names)}: means are not restored after rounding, for {reason}"
        for reason, names in reasons.items()
        if names
    ]


def _taken_over(compressed: Compressed, formats: Formats) -> list[str]:
    """A line if integer kernels will round results that are in fixed point until now."""
    names = [
        name
        for name, fmt in formats.items()
        if fmt.ranges is not None and f"{name}.weight" in compressed.results
    ]
    if not names:
        return []
    return [
        f"{first_of(names)}: activations are in fixed point no longer, but in the kernel's 8 bits"
    ]


def layer_formats(model: nn.Module, step: Quantize) -> tuple[Formats, list[str]]:
    """The formats `step` gives the layers it matches; what they are not given, and why.

    Layers at 32 bits have none. `PolicyError` if it matches no layer.
    """
    layers = quantizable_layers(model)
    names = matching(layers, step.layers, step.exclude)
    if not names:
        close = nearest(step.layers[0], layers)
        raise PolicyError(
            f"quantize.layers: must match a layer it can act on, but {list(step.layers)} "
            f"matches none; nearest: {', '.join(close) or 'none'}"
        )
    formats: Formats = {}
    refused: dict[str, list[str]] = {}
    for name in names:
        bits = value_for(name, step.bits, FLOAT_BITS)
        if bits < FLOAT_BITS:
            formats[name], reasons = _format(layers[name], bits, step)
            for reason in reasons:
                refused.setdefault(reason, []).append(name)
    lines = [f"{first_of(own)}: {reason}" for reason, own in refused.items()]
    others = [
        name
        for name, fmt in formats.items()
        if fmt.bits < HALF_BITS and not isinstance(layers[name], nn.Conv2d)
    ]
    if step.ranges != "minmax" and others and all(fmt.ranges is None for fmt in formats.values()):
        lines.append(f"{first_of(others)}: ranges {step.ranges} say nothing of them, {AS_THEY_RUN}")
    matrices = {name for name, one in model.named_parameters() if one.ndim > 1}
    return formats, lines + left_out(model, step, matrices - {f"{one}.weight" for one in layers})


def left_out(model: nn.Module, step: Quantize | FixedPoint, unknown: Container[str]) -> list[str]:
    """A line for each kind of module that `step` matches and that holds `unknown` parameters.

    Those are the ones it has no format for. A module that shall keep 32 bits is not spoken of.
    """
    bits = step.bits
    default = min(bits.values(), default=FLOAT_BITS) if isinstance(bits, dict) else bits
    left: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        owner = name.rpartition(".")[0]
        is_matched = name in unknown and matching([owner], step.layers, step.exclude)
        if is_matched and value_for(owner, bits, default) < FLOAT_BITS:
            left.setdefault(type(model.get_submodule(owner)).__name__, []).append(name)
    return [
        f"{first_of(names)}: left in fp32, for {step.kind} has no format for what {kind} holds"
        for kind, names in left.items()
    ]


def _format(layer: Layer, bits: int, step: Quantize) -> tuple[LayerFormat, list[str]]:
    """The format of a layer, and what it is not given."""
    if bits == HALF_BITS:
        asked = step.rounding, step.scheme, step.granularity
        is_plain = asked == ("nearest", "symmetric", "auto")
        return LayerFormat(bits=HALF_BITS), [] if is_plain else [HALVED]
    if isinstance(layer, nn.Conv2d):
        return _convolution_format(layer, bits, step)
    fmt = LayerFormat(
        bits=bits,
        group_size=step.group_size if step.granularity in ("auto", "group") else None,
        per_tensor=step.granularity == "tensor",
        affine=step.scheme == "affine",
        activation_bits=step.activation_bits,
    )
    return _with_rounding(fmt, layer, step)


def _convolution_format(
    layer: nn.Conv2d, bits: int, step: Quantize
) -> tuple[LayerFormat, list[str]]:
    computes_integers = step.activation_bits == WHOLE_BYTE
    lines = []
    if bits < WHOLE_BYTE and layer.weight[0].numel() < FEWEST_INPUTS:
        # a depthwise convolution, say: it is small, and its channels have no redundancy
        lines.append(
            f"convolutions have fewer than {FEWEST_INPUTS} inputs to a channel, too few for so few "
            f"bits, and keep {WHOLE_BYTE}"
        )
        bits = WHOLE_BYTE
    is_grouped = step.granularity == "group"
    if is_grouped and computes_integers:
        lines.append("convolutions have a scale a channel: no kernel has more of them in 8 bits")
        is_grouped = False
    is_affine = step.scheme == "affine"
    if is_affine and computes_integers and bits == WHOLE_BYTE:
        lines.append("convolutions are symmetric: no kernel computes affine weights of 8 bits")
        is_affine = False
    fmt = LayerFormat(
        bits=bits,
        group_size=step.group_size if is_grouped else None,
        ranges=step.ranges if computes_integers else None,
        per_tensor=step.granularity == "tensor",
        affine=is_affine,
        activation_bits=step.activation_bits,
        # depthwise kernels add products one by one
        reduce_range=computes_integers and bits == WHOLE_BYTE and not is_depthwise(layer),
    )
    rounded, more = _with_rounding(fmt, layer, step)
    return rounded, lines + more


def _with_rounding(fmt: LayerFormat, layer: Layer, step: Quantize) -> tuple[LayerFormat, list[str]]:
    if step.rounding == "nearest":
        return fmt, []
    if isinstance(layer, nn.Embedding) or is_compensable(layer):
        return fmt.model_copy(update={"rounding": step.rounding}), []
    return fmt, [
        f"rounded to nearest: its inputs are grouped, more than {MOST_INPUTS:,} or padded with "
        "other numbers than zeros, and are not compensated for"
    ]


def _round(
    compressed: Compressed,
    formats: Formats,
    forwards: Sequence[Forward],
    restored: Collection[str],
) -> list[str]:
    """Store the layers at their formats, those that need no data first.

    The means of what enters the norms and leaves the convolutions in `restored` will be restored.
    """
    layers = quantizable_layers(compressed.module)
    formats, lines = _left_to_round(compressed, formats)
    for name, fmt in formats.items():
        if fmt.bits == HALF_BITS:
            compressed.halve_(f"{name}.weight")
        elif fmt.rounding == "nearest":
            weight = layers[name].weight
            compressed.store_(f"{name}.weight", with_gain(quantize_tensor(weight, fmt), weight))
    alone = _compensate_(compressed, formats, forwards, restored)
    if alone:
        lines.append(
            f"{first_of(alone)}: rounded to nearest, for no layer that is called as one multiplies "
            "by these weights, so there is nothing to compensate"
        )
    return lines


def _compensate_(
    compressed: Compressed,
    formats: Formats,
    forwards: Sequence[Forward],
    restored: Collection[str],
) -> list[str]:
    """Store the layers that shall be; returns those of which no inputs were seen, so are not."""
    layers = quantizable_layers(compressed.module)
    compensated = {
        name: layers[name] for name, fmt in formats.items() if fmt.rounding == "compensated"
    }
    assert forwards or not compensated, "compensated rounding needs calibration data"
    normed = any(not isinstance(compressed.module.get_submodule(one), Layer) for one in restored)
    alone: list[str] = []
    for names in batched(compensated):
        weights = {name: layers[name].weight for name in names}
        found = moments(compressed.module, weights, forwards)
        for name, weight in weights.items():
            if name in found:
                is_shifted = isinstance(layers[name], nn.Conv2d) and (normed or name in restored)
                tensor = _compensated(weight, found[name], formats[name], is_shifted)
            else:
                alone.append(name)
                nearest_format = formats[name].model_copy(update={"rounding": "nearest"})
                tensor = with_gain(quantize_tensor(weight, nearest_format), weight)
            compressed.store_(f"{name}.weight", tensor)
    return alone


def _compensated(
    weight: Tensor, inputs: Moments, fmt: LayerFormat, is_shifted: bool
) -> QuantizedTensor:
    """Where the mean of what it computes is restored anyway, what varies keeps its size."""
    tensor = compensate(weight, inputs.second, fmt)
    return with_gain(tensor, weight, inputs.about_mean() if is_shifted else inputs.second)


def _left_to_round(compressed: Compressed, formats: Formats) -> tuple[Formats, list[str]]:
    """The formats of weights that have no codes of the same grid yet, and what stays as it was.

    Rounded again, codes could only move away from the weights they were made of.
    """
    left: Formats = {}
    others: list[str] = []
    for name, fmt in formats.items():
        tensor = compressed.quantized.get(f"{name}.weight")
        if tensor is None or not tensor.format.fits(fmt):
            left[name] = fmt
            continue
        if tensor.format.rounding != fmt.rounding:
            others.append(name)
        kept = {"rounding": tensor.format.rounding, "reduce_range": tensor.format.reduce_range}
        own = fmt.model_copy(update=kept)
        compressed.store_(f"{name}.weight", replace(tensor, format=own))
    if not others:
        return left, []
    return left, [f"{first_of(others)}: codes stay as an earlier step chose them, in the same grid"]


def quantizable_layers(model: nn.Module) -> dict[str, Layer]:
    """The linear, embedding and convolution layers by name, the first of those sharing a weight."""
    first_names = {name for name, _ in model.named_parameters()}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Layer) and f"{name}.weight" in first_names
    }
