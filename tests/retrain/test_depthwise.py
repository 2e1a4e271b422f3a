"""Depthwise convolutions with gradients of their own, against PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocomp.retrain.depthwise import FastDepthwise

CHANNELS = 6
SHAPES = {
    "3x3": ((9, 9), 3, 1, 1),
    "3x3, stride 2": ((9, 8), 3, 2, 1),
    "5x5, stride 2": ((10, 11), 5, 2, 2),
    "no padding": ((10, 10), 5, 2, 0),
    "pixels nobody reads": ((8, 8), 3, 2, 0),
    "stride 3": ((12, 13), 3, 3, 1),
    "stride by axis": ((9, 12), 3, (1, 2), (1, 0)),
    "one tap": ((6, 6), 1, 1, 0),
}


def gradients(
    size: tuple[int, int], kernel: int, stride: int, padding: int, has_bias: bool
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(2, CHANNELS, *size, generator=generator, requires_grad=True),
        torch.randn(CHANNELS, 1, kernel, kernel, generator=generator, requires_grad=True),
        *([torch.randn(CHANNELS, generator=generator, requires_grad=True)] if has_bias else []),
    ]
    bias = tensors[2] if has_bias else None
    y = functional.conv2d(tensors[0], tensors[1], bias, stride, padding, 1, CHANNELS)
    direction = torch.randn(y.shape, generator=generator)
    return [y, *torch.autograd.grad(y, tensors, direction)]


@pytest.mark.parametrize("has_bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), SHAPES.values(), ids=SHAPES)
def test_results_and_gradients_are_pytorch_s(
    size: tuple[int, int], kernel: int, stride: int, padding: int, has_bias: bool
) -> None:
    expected = gradients(size, kernel, stride, padding, has_bias)
    with FastDepthwise():
        found = gradients(size, kernel, stride, padding, has_bias)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_layer_computes_in_the_autocast_type_and_learns_in_its_own() -> None:
    layer = nn.Conv2d(8, 8, 3, 2, 1, groups=8)
    x = torch.randn(2, 8, 9, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16), FastDepthwise():
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), atol=0.02, rtol=0.02)
    y.float().square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.Conv2d(8, 8, 3, groups=4),
        nn.Conv2d(8, 8, 3, dilation=2, groups=8),
        nn.Conv2d(8, 8, 3, padding="same", groups=8),
        nn.Conv2d(8, 8, 1, stride=2, groups=8),
    ],
    ids=["dense", "widening", "grouped", "dilated", "named padding", "stride beyond the kernel"],
)
def test_other_convolutions_are_left_to_pytorch(layer: nn.Conv2d) -> None:
    x = torch.randn(2, 8, 9, 9)
    with FastDepthwise():
        y = layer(x)
    assert "Depthwise" not in type(y.grad_fn).__name__
    torch.testing.assert_close(y, layer(x))
