"""Depthwise convolutions whose backward pass is as fast as their forward pass on a CPU.

oneDNN's bf16 gradients of depthwise convolutions are up to a thousand times slower than the forward
pass: those with respect to a strided convolution's input, and those of 5 x 5 weights. Here the
first are forward convolutions again, one for each phase of the stride, and the second are
computed in fp32, where oneDNN is fast.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]


class FastDepthwise(TorchFunctionMode):
    """While active, depthwise convolutions on the CPU compute in the autocast type, both ways."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and not kwargs and _is_depthwise(*args):
            return _convolve(*args)
        return func(*args, **(kwargs or {}))


def _is_depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    return (
        groups > 1
        and groups == x.shape[1] == weight.shape[0]
        and not isinstance(padding, str)
        and _pair(dilation) == (1, 1)
        and all(side >= most for side, most in zip(weight.shape[2:], _pair(stride), strict=True))
        and x.device.type == "cpu"
    )


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    *_: object,
) -> Tensor:
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    x = x.to(dtype, memory_format=torch.channels_last)
    y: Tensor = _Depthwise.apply(  # type: ignore[no-untyped-call]
        x, weight.to(dtype), _pair(stride), _pair(padding)
    )
    return y if bias is None else y + bias.to(dtype)[:, None, None]


class _Depthwise(torch.autograd.Function):
    """x (B, C, H, W), weight (C, 1, k, l), no bias -> (B, C, h, w)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        with torch.autocast("cpu", enabled=False):
            return functional.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _input_gradient(gradient, weight, ctx.stride, ctx.padding, x.shape[2:])
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(gradient, x, weight, ctx.stride, ctx.padding)
        return of_x, of_weight, None, None


def _input_gradient(
    gradient: Tensor, weight: Tensor, stride: Pair, padding: Pair, size: Sequence[int]
) -> Tensor:
    """d loss / d x (B, C, *size).

    Pixel r hears output q through tap r + padding - stride x q: pixels that lie a multiple of the
    stride apart share their taps, and are one convolution of the gradient with these.
    """
    found = gradient.new_empty(*gradient.shape[:2], *size).contiguous(
        memory_format=torch.channels_last
    )
    for phase in itertools.product(*map(range, stride)):
        taps = tuple(
            slice((start + pad) % step, None, step)
            for start, pad, step in zip(phase, padding, stride, strict=True)
        )
        own = weight[:, :, taps[0], taps[1]].flip(2, 3)
        borders = []
        pixels = tuple(slice(start, None, step) for start, step in zip(phase, stride, strict=True))
        for axis in (1, 0):  # functional.pad takes the last axis first
            first = (phase[axis] + padding[axis]) // stride[axis]
            count = len(range(size[axis])[pixels[axis]])
            borders += [own.shape[2 + axis] - 1 - first, count + first - gradient.shape[2 + axis]]
        padded = functional.pad(gradient, borders)
        found[:, :, pixels[0], pixels[1]] = functional.conv2d(padded, own, groups=len(own))
    return found


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair
) -> Tensor:
    """d loss / d weight (C, 1, k, l), in fp32."""
    _, found, _ = torch.ops.aten.convolution_backward(
        gradient.float(),
        x.float(),
        weight.float(),
        None,
        list(stride),
        list(padding),
        [1, 1],
        False,
        [0, 0],
        len(weight),
        [False, True, False],
    )
    return found  # type: ignore[no-any-return]


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else tuple(value)
