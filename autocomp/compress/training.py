"""Quantisation-aware training: the model trains through the rounding that it will ship with.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (1712.05877): forward passes read rounded weights and activations, gradients pass
straight through. Weights are rounded to the very codes that ship; a norm after a convolution is
folded into the scales of its channels when the model is lowered. Activations are rounded where the
artefact rounds them, a linear layer's exactly as there, but for autocast: in bf16 the product is of
rounded activations and weights cut to 8 significant bits. A convolution's have a running range
here, and there one that is measured on the trained model: this one is of batches, of weights that
still change, and of the least and greatest values, whatever method the format asks for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from autocomp.compress.activations import (
    LONGEST_GROUP,
    Around,
    RoundedActivations,
    RunningRange,
)
from autocomp.compress.formats import (
    FLOAT_BITS,
    HALF_BITS,
    Compressed,
    LayerFormat,
    half,
    quantize_tensor,
)
from autocomp.compress.quantize import Formats, layer_formats, shifts_means
from autocomp.errors import first_of
from autocomp.rounding import Quantize

FROZEN_FROM = 0.7
"""The fraction of a retrain after which ranges and BatchNorm statistics stay as they are."""


def rounded(weight: Tensor, fmt: LayerFormat) -> Tensor:
    """The fp32 values of `weight` in `fmt`."""
    if fmt.bits == HALF_BITS:
        return half(weight).float()
    return quantize_tensor(weight, fmt).dequantize()


@dataclass
class FakeQuantized:
    """The regime of a quantize step with `qat: true`; see `autocomp.retrain.regimes.Regime`.

    `formats` are of weights by name. `ranges` are those around convolutions that compute in
    integers, `groups` the inputs to a scale of what linear layers read, by the weights' names.
    """

    compressed: Compressed
    step: Quantize
    formats: dict[str, LayerFormat]
    ranges: dict[str, Around] = field(init=False, default_factory=dict)
    groups: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name, fmt in self.formats.items():
            if fmt.ranges is not None:
                layer = name.removesuffix(".weight")
                ends = RunningRange(f"into {layer}"), RunningRange(f"out of {layer}")
                self.ranges[name] = Around(*ends)
            elif _rounds_inputs(fmt):
                self.groups[name] = fmt.group_size or LONGEST_GROUP

    def leave(self, names: Collection[str]) -> None:
        """Let another step round the weights `names`, which would err twice if this one did too."""
        for held in (self.formats, self.ranges, self.groups):
            for name in names:
                held.pop(name, None)

    def untrained(self, trainable: Collection[str]) -> list[str]:
        """The weights that it rounds, and that training `trainable` leaves alone."""
        there = dict(self.compressed.module.named_parameters())
        return [name for name in self.formats if name in there and name not in trainable]

    def at_once(self, names: Collection[str]) -> Quantize:
        """The step that rounds the weights `names` as one without `qat` does."""
        layers = tuple(name.removesuffix(".weight") for name in names)
        return self.step.model_copy(update={"layers": layers, "exclude": (), "qat": False})

    def idle(self, trainable: Collection[str]) -> str | None:
        left = self.untrained(trainable)
        if not left:
            return None
        return (
            f"quantize with qat rounds {first_of(left)} untrained: no retrain trains "
            f"{'it' if len(left) == 1 else 'them'}"
        )

    def parameters(self) -> list[nn.Parameter]:
        return []

    def shifts_means(self) -> bool:
        """Whether it rounds convolutions to codes."""
        by_layer = {name.removesuffix(".weight"): fmt for name, fmt in self.formats.items()}
        return shifts_means(self.compressed.module, by_layer)

    @contextmanager
    def rounded_weights(self, model: nn.Module) -> Iterator[dict[str, Tensor]]:
        """Let `model` read its weights rounded; yields them by name."""
        own = dict(model.named_parameters())
        # a later step may have dropped the layers of some
        there = {name: fmt for name, fmt in self.formats.items() if name in own}
        device_type = next(model.parameters()).device.type
        with torch.autocast(device_type, enabled=False):  # codes are not for bf16
            weights = {name: _through(own[name], fmt) for name, fmt in there.items()}
        with _holding(model, {id(own[name]): weight for name, weight in weights.items()}):
            yield weights

    @contextmanager
    def active(self, model: nn.Module) -> Iterator[None]:
        """Rounds for one forward pass of `model`."""
        with self.rounded_weights(model) as weights:
            groups = {id(weights[name]): self.groups[name] for name in self.groups.keys() & weights}
            around = {id(weights[name]): self.ranges[name] for name in self.ranges.keys() & weights}
            with RoundedActivations(groups, around):
                yield

    def loss(self, model: nn.Module, progress: float) -> Tensor | None:
        return None

    def after_step(self, model: nn.Module, progress: float) -> None:
        if progress < FROZEN_FROM:
            return
        for around in self.ranges.values():
            around.into.is_frozen = around.out_of.is_frozen = True
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def finish(self, model: nn.Module) -> None:
        """Leave the codes whose values a next forward pass would read."""
        for name, parameter in model.named_parameters():
            if name not in self.formats:
                continue
            if self.formats[name].bits == HALF_BITS:
                self.compressed.halve_(name)
                continue
            self.compressed.store_(name, quantize_tensor(parameter.cpu(), self.formats[name]))


def fake_quantized(compressed: Compressed, step: Quantize) -> tuple[FakeQuantized, list[str]]:
    """The regime that a quantize step with `qat: true` attaches; what of it is skipped, and why."""
    formats, skipped = layer_formats(compressed.module, step)
    by_weight = {f"{name}.weight": fmt for name, fmt in formats.items()}
    return FakeQuantized(compressed, step, by_weight), skipped + _hidden(compressed.module, formats)


def _hidden(model: nn.Module, formats: Formats) -> list[str]:
    """A line if what comes into some layers is rounded where nothing sees it in training."""
    attentions = (
        f"{name}.out_proj"
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    )
    hidden = [name for name in attentions if name in formats and _rounds_inputs(formats[name])]
    if not hidden:
        return []
    return [
        f"{', '.join(hidden)}: trained through the rounding of weights alone, for "
        "nn.MultiheadAttention hides what it multiplies them by"
    ]


def _rounds_inputs(fmt: LayerFormat) -> bool:
    """Whether a linear layer in this format rounds what comes in, as it runs."""
    return fmt.bits < HALF_BITS and fmt.activation_bits < FLOAT_BITS


def _through(weight: Tensor, fmt: LayerFormat) -> Tensor:
    """`weight` rounded, with gradients as if it were not."""
    return weight + (rounded(weight, fmt) - weight).detach()


@contextmanager
def _holding(model: nn.Module, held: Mapping[int, Tensor]) -> Iterator[None]:
    """Let `model` hold the tensors in `held` in place of the parameters of those ids.

    Whatever reads a weight, by any function and under any of its names, so reads another.
    """
    places = [
        (module, key, parameter)
        for module in model.modules()
        for key, parameter in module._parameters.items()
        if id(parameter) in held
    ]
    try:
        for module, key, parameter in places:
            module._parameters[key] = held[id(parameter)]  # type: ignore[assignment]
        yield
    finally:
        for module, key, parameter in places:
            module._parameters[key] = parameter
