"""Activations as they are rounded at run time, for a model that trains through that rounding.

A linear layer in 8 bits rounds what it multiplies, a scale a group, as it runs. A convolution in 8
bits reads and gives unsigned codes over ranges that are known beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from autocomp.errors import TrialStopped

Function = Callable[..., Any]

MOMENTUM = 0.1
"""How far a running range moves towards that of a batch."""
LARGEST_CODE, LARGEST_SIGNED_CODE = 255, 127
LONGEST_GROUP = 128
"""Inputs to a scale where weights have one a row or a tensor: the kernel has no longer groups."""
LAYERS = (functional.linear, torch.conv2d)
NORM = functional.batch_norm
INCLUDED = (
    *(functional.relu, functional.relu6, functional.hardtanh),
    *(torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_),
    *(torch.clamp, torch.clamp_, torch.Tensor.clamp, torch.Tensor.clamp_),
    *(torch.clip, torch.clip_, torch.Tensor.clip, torch.Tensor.clip_),
)
"""Activation functions that a convolution computes along with itself."""
SHAPES = (torch.Tensor.dim, torch.Tensor.size)
TURNED = ("T", "mT", "H", "mH")
"""The attributes of a tensor that hold its values; what looks at others reads none, as `SHAPES`."""


@dataclass
class RunningRange:
    """What activations have lately lain between; 8 unsigned bits divide it, and zero is a code.

    `place` says which they are, "into conv" say.
    """

    place: str
    low: float = 0.0
    high: float = 0.0
    is_frozen: bool = False

    def see(self, x: Tensor) -> None:
        """Move towards the range of `x`; `TrialStopped` if that is not finite."""
        low, high = (end.item() for end in x.aminmax())
        if not math.isfinite(high - low):
            raise TrialStopped(f"the activations {self.place} became {high - low}")
        step = 1.0 if self.low == self.high else MOMENTUM
        self.low += step * (min(low, 0.0) - self.low)
        self.high += step * (max(high, 0.0) - self.high)

    def round(self, x: Tensor) -> Tensor:
        """`x`, rounded; its gradient where it is inside the range."""
        if not self.is_frozen:
            self.see(x.detach())
        if self.low == self.high:
            return x
        scale = (self.high - self.low) / LARGEST_CODE
        zero = round(-self.low / scale)
        rounded = torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, LARGEST_CODE)
        return rounded.to(x.dtype)


def round_groups(x: Tensor, size: int) -> Tensor:
    """`x` (..., K) in 8 signed bits, a scale for every `size` inputs; its gradient as it comes."""
    with torch.no_grad():
        missing = -x.shape[-1] % size
        padded = functional.pad(x, (0, missing)) if missing else x
        groups = padded.float().reshape(-1, size)
        scales = groups.abs().amax(dim=1, keepdim=True) / LARGEST_SIGNED_CODE
        scales = scales.clamp(min=torch.finfo(torch.float32).tiny)
        rounded = (groups / scales).round() * scales
        change = rounded.view(padded.shape)[..., : x.shape[-1]] - x
    return x + change.to(x.dtype)


class Around(NamedTuple):
    """The ranges of what goes into a convolution and of what comes out of it."""

    into: RunningRange
    out_of: RunningRange


class Awaited(NamedTuple):
    """A tensor to be rounded before it is read, but by one of `passes`: then that one's result."""

    tensor: Tensor
    observed: RunningRange
    passes: Collection[Function]


def _is_attribute(func: Function) -> bool:
    """Whether `func` gets an attribute of a tensor that says nothing of its values."""
    attribute = getattr(getattr(func, "__self__", None), "__name__", "")
    return getattr(func, "__name__", "") == "__get__" and attribute not in TURNED


def _pads_zeros(
    x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> bool:
    """Whether `functional.pad`, called with these, adds zeros."""
    return mode == "constant" and not value


class RoundedActivations(TorchFunctionMode):
    """While active, layers in 8 bits read, and convolutions give, rounded activations.

    By the ids of their weights, `groups` has how many inputs of a linear layer share a scale, and
    `around` the ranges of a convolution. What a convolution reads or gives, everything reads
    rounded: also a sum that skips the layer. Its result is rounded past a norm that follows, which
    is folded into it when the model is lowered, and past an activation function, even if something
    else reads what goes into that. Layers are whatever calls `functional.linear` or `torch.conv2d`,
    except inside `functional.multi_head_attention_forward`: PyTorch hides what that calls.
    """

    def __init__(self, groups: Mapping[int, int], around: Mapping[int, Around]) -> None:
        super().__init__()
        self.groups, self.around = groups, around
        # by id, with the tensor itself: another could bear the id of one that is gone
        self.awaited: dict[int, Awaited] = {}
        self.rounded: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self,
        func: Function,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in SHAPES or _is_attribute(func):
            return func(*args, **kwargs)
        if func in LAYERS:
            x, weight, *rest = *args, *map(kwargs.pop, ("input", "weight")[len(args) :])
            return self._compute(func, x, weight, rest, kwargs)
        awaited = self.awaited.get(id(args[0])) if args else None
        if awaited is not None and func in awaited.passes:
            del self.awaited[id(awaited.tensor)]
            result = func(*args, **kwargs)
            self._await(result, awaited.observed, INCLUDED if func is NORM else ())
            return result
        result = func(*self._read(args), **self._read(kwargs))
        if func is functional.pad and _pads_zeros(*args, **kwargs) and id(args[0]) in self.rounded:
            self.rounded[id(result)] = result, result  # zero is a code: nothing to round is new
        return result

    def _compute(
        self, func: Function, x: Tensor, weight: Tensor, rest: list[Any], kwargs: dict[str, Any]
    ) -> Any:
        around = self.around.get(id(weight))
        if around and id(x) not in self.awaited and id(x) not in self.rounded:
            self._await(x, around.into, ())
        x = self._read(x)
        if func is functional.linear and id(weight) in self.groups:
            x = round_groups(x, self.groups[id(weight)])
        result = func(x, *self._read([weight, *rest]), **self._read(kwargs))
        if around:
            self._await(result, around.out_of, (NORM, *INCLUDED))
        return result

    def _await(self, x: Tensor, observed: RunningRange, passes: Collection[Function]) -> None:
        self.awaited[id(x)] = Awaited(x, observed, passes)

    def _read(self, value: Any) -> Any:
        """`value`, or what it holds, as its readers have it."""
        if isinstance(value, dict):
            return {key: self._read(one) for key, one in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._read(one) for one in value)
        if id(value) in self.awaited:
            self.rounded[id(value)] = value, self.awaited.pop(id(value)).observed.round(value)
        return self.rounded.get(id(value), (value, value))[1]
