"""Classifiers of 32 x 32 images: ResNets and VGG16, with the names their published weights have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocomp.models.backbones import ResidualBlock

VGG16: tuple[tuple[int, ...], ...] = (
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
)
"""Channels of the convolutions between two poolings, 1409.1556."""


class PaddedShortcut(nn.Module):
    """The input's channels in the middle, zeros on either side (option A of 1512.03385)."""

    def __init__(self, padding: int, stride: int) -> None:
        super().__init__()
        self.padding, self.stride = padding, stride

    def forward(self, x: Tensor) -> Tensor:
        around = (0, 0, 0, 0, self.padding, self.padding)
        return functional.pad(x[:, :, :: self.stride, :: self.stride], around)


class PaddedBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut without weights."""

    def make_shortcut(self, channels_in: int, channels: int, stride: int) -> nn.Module:
        if stride == 1 and channels_in == channels:
            return nn.Sequential()
        return PaddedShortcut((channels - channels_in) // 2, stride)


class CifarResNet(nn.Module):
    """Residual stages at strides 1, 2, 2, ...: images (B, 3, H, W) -> logits (B, K)."""

    def __init__(
        self,
        classes: int,
        block: Callable[[int, int, int], nn.Module],
        widths: tuple[int, ...],
        blocks: int,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        before = widths[0]
        self.stages = [f"layer{index}" for index in range(1, len(widths) + 1)]
        for index, (name, width) in enumerate(zip(self.stages, widths, strict=True)):
            first = block(before, width, 2 if index else 1)
            others = (block(width, width, 1) for _ in range(blocks - 1))
            self.add_module(name, nn.Sequential(first, *others))
            before = width
        self.linear = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.linear(x)  # type: ignore[no-any-return]


class CifarVgg(nn.Module):
    """VGG's convolutions with a single linear layer: images (B, 3, H, W) -> logits (B, K)."""

    def __init__(self, classes: int, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for stage in VGG16:
            for width in stage:
                layers.append(nn.Conv2d(before, width, 3, 1, 1))
                layers += [nn.BatchNorm2d(width)] if batch_norm else []
                layers.append(nn.ReLU())
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, classes)
        for module in self.modules():
            # without norms the default initialisation lets fourteen layers fade to nothing
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        return self.classifier(x)  # type: ignore[no-any-return]


def _resnet(depth: int) -> Callable[[int], nn.Module]:
    """6n + 2 layers in three stages, section 4.2 of 1512.03385."""
    return partial(CifarResNet, block=PaddedBlock, widths=(16, 32, 64), blocks=(depth - 2) // 6)


CIFAR_CLASSIFIERS: dict[str, Callable[[int], nn.Module]] = {
    **{f"cifar_resnet{depth}": _resnet(depth) for depth in (20, 32, 44, 56)},
    "cifar_resnet18": partial(
        CifarResNet, block=ResidualBlock, widths=(64, 128, 256, 512), blocks=2
    ),
    "cifar_vgg16": partial(CifarVgg, batch_norm=False),
    "cifar_vgg16_bn": partial(CifarVgg, batch_norm=True),
}
"""Name -> the classifier of a number of classes."""
