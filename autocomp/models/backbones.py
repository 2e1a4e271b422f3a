"""Convolutional backbones, from image to a grid of features: ours, torchvision's, timm's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autocomp.errors import UserError
from autocomp.models.libraries import (
    IMAGENET,
    Normalization,
    is_torchvision,
    library_normalization,
    outline,
    timm_maps,
    torchvision_maps,
)
from autocomp.models.weights import PLACE, load_weights_, read_weights


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, 1512.03385; halves the resolution when stride is 2."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = self.make_shortcut(channels_in, channels, stride)

    def make_shortcut(self, channels_in: int, channels: int, stride: int) -> nn.Module:
        """What gives the input the output's shape: nothing where it has it."""
        if stride == 1 and channels_in == channels:
            return nn.Sequential()
        return nn.Sequential(
            nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class TinyResNet(nn.Module):
    """A residual network for small images: stride 8, 128 channels, 0.3 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 24, 3, 2, 1, bias=False)
        self.bn_stem = nn.BatchNorm2d(24)
        widths = ((24, 48), (48, 128))
        self.layers = nn.Sequential(*(ResidualBlock(a, b, stride=2) for a, b in widths))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(torch.relu(self.bn_stem(self.conv_stem(x))))  # type: ignore[no-any-return]


BACKBONES: dict[str, Callable[[], nn.Module]] = {"tiny_resnet": TinyResNet}


def build_backbone(name: str, weights: str, image_size: int) -> tuple[nn.Module, Normalization]:
    """The backbone called `name` and the mean and deviation (of pixels in [0, 1]) it expects.

    It maps (B, 3, H, W) to features (B, C, h, w). `weights` is `default` (the library's own),
    `none`, or the path of a safetensors file with the library's key names. `image_size` in pixels
    matters for the few nets that take one size alone.
    """
    pretrained, given = weights == "default", weights not in ("default", "none")
    if name in BACKBONES:
        if pretrained:
            raise UserError(f"{PLACE}: must be none or a path for {name!r}, but got 'default'")
        net = BACKBONES[name]()
        if given:
            load_weights_(net, read_weights(weights))
        return net, IMAGENET
    if is_torchvision(name, "task.model.backbone", BACKBONES):
        net = torchvision_maps(name, pretrained, image_size)
    else:
        net = timm_maps(name, pretrained)
    if given:
        load_weights_(net, read_weights(weights), whole=outline(name))
    return net, library_normalization(name)
