"""Quantisation-aware training: the model trains through the rounding that it will ship with.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (1712.05877): forward passes read rounded weights and activations, gradients pass
straight through. A norm after a convolution is folded into the scales of its channels when the
model is lowered, so that what is rounded here is what ships.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from autocomp.compress.formats import (
    HALF_BITS,
    Compressed,
    LayerFormat,
    half,
    quantize_tensor,
)
from autocomp.compress.quantize import layer_formats
from autocomp.rounding import Quantize

FROZEN_FROM = 0.7
"""The fraction of a retrain after which ranges and BatchNorm statistics stay as they are."""
MOMENTUM = 0.1
"""How far a running range moves towards that of a batch."""
LARGEST_CODE = 255
READERS = (functional.linear, functional.embedding, torch.conv2d)


@dataclass
class RunningRange:
    """What activations have lately lain between; 8 unsigned bits divide it, and zero is a code."""

    low: float = 0.0
    high: float = 0.0
    is_frozen: bool = False

    def see(self, x: Tensor) -> None:
        low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
        is_first = self.low == self.high
        step = 1.0 if is_first else MOMENTUM
        self.low += step * (low - self.low)
        self.high += step * (high - self.high)

    def round(self, x: Tensor) -> Tensor:
        """`x` in fp32, rounded; its gradient where it is inside the range."""
        if not self.is_frozen:
            self.see(x.detach())
        if self.low == self.high:
            return x
        scale = (self.high - self.low) / LARGEST_CODE
        zero = round(-self.low / scale)
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, LARGEST_CODE)


class RoundedReads(TorchFunctionMode):
    """While active, whatever reads one of the weights reads its rounded values.

    It needs no layer's cooperation: weights that two layers share, and layers that call functions
    on their weights, are rounded all the same. A weight is rounded once a pass.
    """

    def __init__(self, regime: FakeQuantized) -> None:
        super().__init__()
        self.regime = regime
        self.rounded: dict[int, Tensor] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # the first argument is what is multiplied, of an embedding the words; the second the weight
        if func in READERS and len(args) > 1 and id(args[1]) in self.regime.names:
            name = self.regime.names[id(args[1])]
            args = [self._input(name, args[0]), self._weight(name, args[1]), *args[2:]]
        return func(*args, **(kwargs or {}))

    def _input(self, name: str, x: Tensor) -> Tensor:
        observed = self.regime.ranges.get(name)
        return x if observed is None else observed.round(x)

    def _weight(self, name: str, weight: Tensor) -> Tensor:
        if id(weight) not in self.rounded:
            with torch.autocast(weight.device.type, enabled=False):  # codes are not for bf16
                values = rounded(weight, self.regime.formats[name])
            self.rounded[id(weight)] = weight + (values - weight).detach()
        return self.rounded[id(weight)]


def rounded(weight: Tensor, fmt: LayerFormat) -> Tensor:
    """The fp32 values of `weight` in `fmt`."""
    if fmt.bits == HALF_BITS:
        return half(weight).float()
    return quantize_tensor(weight, fmt).dequantize()


@dataclass
class FakeQuantized:
    """The regime of a quantize step with `qat: true`; see `autocomp.retrain.regimes.Regime`.

    `formats` are of weights by name. Inputs of convolutions that compute in integers are rounded
    over running `ranges`.
    """

    compressed: Compressed
    formats: dict[str, LayerFormat]
    ranges: dict[str, RunningRange] = field(init=False)
    names: dict[int, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        integers = (name for name, fmt in self.formats.items() if fmt.ranges is not None)
        self.ranges = {name: RunningRange() for name in integers}

    def idle(self, trainable: Collection[str]) -> str | None:
        left = [name for name in self.formats if name not in trainable]
        if not left:
            return None
        return (
            f"quantize with qat rounds {left[0]} and {len(left) - 1} more as they are: this "
            "retrain does not train them"
        )

    def parameters(self) -> list[nn.Parameter]:
        return []

    @contextmanager
    def active(self, model: nn.Module) -> Iterator[None]:
        """Rounds for one forward pass of `model`."""
        self.names = {
            id(parameter): name
            for name, parameter in model.named_parameters()
            if name in self.formats
        }
        with RoundedReads(self):
            yield

    def loss(self, model: nn.Module, progress: float) -> Tensor | None:
        return None

    def after_step(self, model: nn.Module, progress: float) -> None:
        if progress < FROZEN_FROM:
            return
        for observed in self.ranges.values():
            observed.is_frozen = True
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def finish(self, model: nn.Module) -> None:
        """Leave the codes whose values the last forward pass would have read."""
        for name, parameter in model.named_parameters():
            if name not in self.formats:
                continue
            if self.formats[name].bits == HALF_BITS:
                self.compressed.halve_(name)
            else:
                self.compressed.store_(name, quantize_tensor(parameter.cpu(), self.formats[name]))


def fake_quantized(compressed: Compressed, step: Quantize) -> tuple[FakeQuantized, list[str]]:
    """The regime that a quantize step with `qat: true` attaches; what of it is skipped, and why."""
    formats, skipped = layer_formats(compressed.module, step)
    by_weight = {f"{name}.weight": fmt for name, fmt in formats.items()}
    return FakeQuantized(compressed, by_weight), skipped
