"""Classifiers by name: ours for small images, torchvision's and timm's for any."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from autocomp.decisions import Decision
from autocomp.errors import UserError
from autocomp.models.cifar import CIFAR_CLASSIFIERS
from autocomp.models.libraries import (
    IMAGENET,
    WITH_AUXILIARY,
    Normalization,
    is_torchvision,
    library_normalization,
    outline,
    timm_net,
    torchvision_net,
    torchvision_weights,
)
from autocomp.models.weights import load_weights_, read_weights

Triple = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]
log = logging.getLogger(__name__)


class ClassifierSettings(Decision):
    """The dense architecture, by `name`.

    `weights` is `default` (the library's own), `none`, or the path of a safetensors file with the
    net's own key names. `mean` and `std` are of the pixels in [0, 1] that the weights were trained
    on: those the library gives, or ImageNet's.
    """

    name: str
    weights: str = "none"
    mean: Triple | None = None
    std: tuple[Positive, Positive, Positive] | None = None

    @model_validator(mode="after")
    def _check_both(self) -> ClassifierSettings:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std must be given together, but one is missing")
        return self


class Normalize(nn.Module):
    """uint8 pixels (B, H, W, 3) -> what a net takes, (B, 3, H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        scale = 255 * torch.tensor(normalization).reshape(2, -1, 1, 1)  # of pixels (3, H, W)
        self.register_buffer("mean", scale[0], persistent=False)
        self.register_buffer("std", scale[1], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        # a runtime subtracts one number from a plane at once, but three in turn pixel by pixel
        return (images.permute(0, 3, 1, 2).float() - self.mean) / self.std


class PixelsToLogits(nn.Module):
    """uint8 pixels (B, H, W, 3) -> logits (B, K), the graph that ships."""

    def __init__(self, normalize: Normalize, net: nn.Module) -> None:
        super().__init__()
        self.normalize, self.net = normalize, net

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.net(self.normalize(images)),)


def build_classifier(settings: ClassifierSettings, classes: int) -> nn.Module:
    """The net, normalised pixels (B, 3, H, W) -> logits (B, classes).

    Where given weights have another number of classes, the last layer keeps its random ones.
    """
    name, weights = settings.name, settings.weights
    if name not in CIFAR_CLASSIFIERS:
        net = _of_library(name, classes, weights == "default")
    elif weights == "default":
        raise UserError(f"task.model.weights: must be none or a path for {name!r}, but got default")
    else:
        net = CIFAR_CLASSIFIERS[name](classes)
    if weights not in ("default", "none"):
        load_but_head_(net, read_weights(weights), name, classes)
    return net


def normalization_of(settings: ClassifierSettings) -> Normalization:
    """The mean and deviation, of pixels in [0, 1], of the images that the net expects."""
    if settings.mean is not None and settings.std is not None:
        return settings.mean, settings.std
    if settings.name in CIFAR_CLASSIFIERS:
        return IMAGENET
    return library_normalization(settings.name)


def load_but_head_(net: nn.Module, values: Mapping[str, Tensor], name: str, classes: int) -> None:
    """Load every tensor of the net called `name`; but for the last layer's of other classes.

    `UserError` if any other is absent or of another shape, or if there are more, beside those of
    classifiers on the way.
    """
    head = head_name(net, classes)
    whole = outline(name) if name in WITH_AUXILIARY else None
    if load_weights_(net, values, head, whole):
        _warn_of_head(head)


@cache
def _warn_of_head(head: str) -> None:
    """Once, for a model is built many times."""
    log.warning("%s: starts from random weights, for those given have other classes", head)


def head_name(net: nn.Module, classes: int) -> str:
    """The name of the layer that gives the logits: the last with an output for each class."""
    layers = [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and len(module.weight) == classes
    ]
    return layers[-1] if layers else ""


def _of_library(name: str, classes: int, pretrained: bool) -> nn.Module:
    if not is_torchvision(name, "task.model.name", CIFAR_CLASSIFIERS):
        return timm_net(name, pretrained, num_classes=classes)
    own = {"aux_logits": False} if name in WITH_AUXILIARY else {}
    net = torchvision_net(name, num_classes=classes, **own)
    if pretrained:
        load_but_head_(net, torchvision_weights(name), name, classes)
    return net
