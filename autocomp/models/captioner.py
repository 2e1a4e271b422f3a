"""What every captioner is: an encoder that sees a grid of features, a decoder that takes steps.

A subclass trains on whole captions (`forward`) and is deployed as two functions: `begin` makes the
decoder's whole state of an image, `step` takes a token and that state. Neither says how much of a
layer is left, so nothing downstream depends on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from autocomp.errors import UserError
from autocomp.models.backbones import build_backbone

State = dict[str, Tensor]
"""What a decoder knows, by name; the first axis of each tensor is the batch."""


class GridEncoder(nn.Module):
    """uint8 pixels (B, H, W, 3) -> a square grid of features, projected to `width`; (B, S, width).

    `image_size` is how many pixels an image has a side, `cells` how many cells the dense model's
    grid has a side. Pixels are normalised inside.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str, weights: str, width: int, image_size: int) -> None:
        super().__init__()
        self.backbone, (mean, std) = build_backbone(backbone, weights, image_size)
        channels, self.cells = _map_shape(self.backbone, image_size)
        self.image_size = image_size
        self.projection = nn.Linear(channels, width)
        scale = 255 * torch.tensor([mean, std]).reshape(2, -1, 1, 1)  # of pixels (3, H, W)
        self.register_buffer("mean", scale[0], persistent=False)
        self.register_buffer("std", scale[1], persistent=False)

    def resize_(self, image_size: int) -> int:
        """Take images of `image_size` pixels from now on; how many cells their grid has a side."""
        _, cells = _map_shape(self.backbone, image_size)
        self.image_size = image_size
        return cells

    def features(self, images: Tensor) -> Tensor:
        """The backbone's grid: images (B, H, W, 3) uint8 -> (B, S, C)."""
        # a runtime subtracts one number from a plane at once, but three in turn pixel by pixel
        pixels = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        maps = self.backbone(pixels)  # (B, C, h, w)
        return maps.flatten(2).transpose(1, 2)  # type: ignore[no-any-return]

    def project(self, features: Tensor) -> Tensor:
        return self.projection(features)  # type: ignore[no-any-return]


class Captioner(nn.Module, ABC):
    """`encoder` and `decoder` hold all weights; `growing` names by what its state gets longer."""

    encoder: GridEncoder
    decoder: nn.Module

    @abstractmethod
    def forward(
        self, tokens: Tensor, images: Tensor | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Logits (B * K, T, V) of K captions an image, and the hidden states by module name.

        From `images` (B, H, W, 3), or from what `encoder.features` made of them.
        """

    @abstractmethod
    def begin(self, images: Tensor) -> State:
        """All that the decoder needs of images (B, H, W, 3) at its first step."""

    @abstractmethod
    def step(self, token: Tensor, position: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (B, V) after a token (B, 1) at `position` (1,), and what of the state changes."""

    def growing(self, name: str) -> int | None:
        """The axis along which a part of the state gets longer by one a step, if it does."""
        return None

    def projected(self, images: Tensor | None, features: Tensor | None) -> Tensor:
        """The projected grid (B, S, width) of images, or of their features."""
        if features is None:
            assert images is not None
            features = self.encoder.features(images)
        return self.encoder.project(features.float())


class GridFeatures(nn.Module):
    """The convolutional part and what reads it, traceable alone, under the model's own names."""

    def __init__(self, model: Captioner) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder.project(self.encoder.features(images))


class EncoderGraph(nn.Module):
    """images (B, H, W, 3) -> the decoder's state, a tuple."""

    def __init__(self, model: Captioner) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder
        self._begin = model.begin

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._begin(images).values())


class DecoderGraph(nn.Module):
    """Token (B, 1), position (1,) and the state `names` -> logits (B, V) and what changes of it."""

    def __init__(self, model: Captioner, names: tuple[str, ...]) -> None:
        super().__init__()
        self.decoder = model.decoder
        self._step, self._names = model.step, names

    def forward(self, token: Tensor, position: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        logits, changed = self._step(token, position, dict(zip(self._names, state, strict=True)))
        return (logits, *changed.values())


def _map_shape(backbone: nn.Module, image_size: int) -> tuple[int, int]:
    """Channels of the backbone's features for one image, and cells along a side of their grid."""
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            shape = tuple(backbone(torch.zeros(1, 3, image_size, image_size)).shape)
    except (RuntimeError, AssertionError) as failure:
        raise UserError(
            f"image_size: must be one the backbone takes, but {image_size} pixels give: "
            f"{' '.join(str(failure).split())}"
        ) from None
    finally:
        backbone.train(training)
    # a square image has a square map: other layouts, such as (1, h, w, C), do not look like one
    if len(shape) != 4 or shape[2] != shape[3]:
        raise UserError(
            f"task.model.backbone: must compute features (1, C, h, w) of an image, but got {shape}"
        )
    return shape[1], shape[2]
