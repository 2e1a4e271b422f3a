"""The CNN + Transformer captioner: a grid of backbone features, then a Transformer decoder.

Layers live under their number in a dictionary, so that dropping some never renames the others: a
tensor's name says which layer of the dense model it comes from.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from autocomp.decisions import Decision
from autocomp.errors import UserError
from autocomp.models.backbones import build_backbone
from autocomp.models.transformer import DecoderLayer, EncoderLayer, grid_positions, positions


class CnnTransformerSettings(Decision):
    """The dense architecture. `weights` are the backbone's: `default`, `none` or a path."""

    kind: Literal["cnn_transformer"] = "cnn_transformer"
    backbone: str = "tiny_resnet"
    weights: str = "none"
    d_model: int = Field(default=256, ge=8)
    heads: int = Field(default=8, ge=1)
    ffn: int = Field(default=1024, ge=1)
    encoder_layers: int = Field(default=0, ge=0, le=6)
    decoder_layers: int = Field(default=3, ge=1, le=6)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    tied_head: bool = True

    @model_validator(mode="after")
    def _check_heads(self) -> CnnTransformerSettings:
        if self.d_model % self.heads:
            divisors = [n for n in range(1, self.d_model + 1) if self.d_model % n == 0]
            close = min(divisors, key=lambda n: abs(n - self.heads))
            raise ValueError(
                f"heads must divide d_model, but got heads={self.heads}, d_model={self.d_model}; "
                f"the nearest that does is {close}"
            )
        if self.d_model % 4:
            raise ValueError(f"d_model must be a multiple of 4, but got {self.d_model}")
        return self


class Encoder(nn.Module):
    """uint8 pixels (B, H, W, 3) -> memory (B, S, d); pixels are normalised inside.

    `image_size` is how many pixels an image has a side, `cells` how many cells the dense model's
    grid of features has a side.
    """

    mean: Tensor
    std: Tensor
    positions: Tensor

    def __init__(self, settings: CnnTransformerSettings, image_size: int) -> None:
        super().__init__()
        self.backbone, (mean, std) = build_backbone(settings.backbone, settings.weights)
        channels, self.cells = _map_shape(self.backbone, image_size)
        self.image_size = image_size
        self.projection = nn.Linear(channels, settings.d_model)
        self.layers = nn.ModuleDict(
            {
                str(i): EncoderLayer(
                    settings.d_model, settings.heads, settings.ffn, settings.dropout
                )
                for i in range(settings.encoder_layers)
            }
        )
        self.norm = nn.LayerNorm(settings.d_model)
        self.dropout = nn.Dropout(settings.dropout)
        scale = 255 * torch.tensor([mean, std]).reshape(2, -1, 1, 1)  # of pixels (3, H, W)
        self.register_buffer("mean", scale[0], persistent=False)
        self.register_buffer("std", scale[1], persistent=False)
        grid = grid_positions(self.cells, settings.d_model)
        self.register_buffer("positions", grid, persistent=False)

    def resize_(self, image_size: int) -> None:
        """Take images of `image_size` pixels from now on; their features lie over the same grid."""
        _, cells = _map_shape(self.backbone, image_size)
        self.image_size = image_size
        self.positions = grid_positions(cells, self.positions.shape[1], over=self.cells)

    def features(self, images: Tensor) -> Tensor:
        """The backbone's grid: images (B, H, W, 3) uint8 -> (B, S, C)."""
        # a runtime subtracts one number from a plane at once, but three in turn pixel by pixel
        pixels = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        maps = self.backbone(pixels)  # (B, C, h, w)
        return maps.flatten(2).transpose(1, 2)  # type: ignore[no-any-return]

    def project(self, features: Tensor) -> Tensor:
        return self.projection(features)  # type: ignore[no-any-return]

    def attend(self, projected: Tensor, hidden: dict[str, Tensor]) -> Tensor:
        """(B, S, d) -> memory (B, S, d); each layer's output is added to `hidden`."""
        hidden["encoder.projection"] = projected
        x = self.dropout(projected) + self.positions
        for index, layer in self.layers.items():
            x = layer(x)
            hidden[f"encoder.layers.{index}"] = x
        return self.norm(x)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Tokens and memory -> logits, over whole captions or one token at a time."""

    positions: Tensor

    def __init__(self, settings: CnnTransformerSettings, vocabulary: int, max_length: int) -> None:
        super().__init__()
        d_model = settings.d_model
        self.embedding = nn.Embedding(vocabulary, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        self.layers = nn.ModuleDict(
            {
                str(i): DecoderLayer(d_model, settings.heads, settings.ffn, settings.dropout)
                for i in range(settings.decoder_layers)
            }
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, vocabulary, bias=False)
        if settings.tied_head:
            self.head.weight = self.embedding.weight
        else:
            nn.init.normal_(self.head.weight, std=d_model**-0.5)
        self.dropout = nn.Dropout(settings.dropout)
        self.scale = math.sqrt(d_model)
        places = positions(torch.arange(max_length), d_model)
        self.register_buffer("positions", places, persistent=False)

    def numbered(self) -> list[tuple[str, DecoderLayer]]:
        """The layers that are left, each with its number in the dense model."""
        return [(index, cast(DecoderLayer, layer)) for index, layer in self.layers.items()]

    def forward(self, tokens: Tensor, memory: Tensor, hidden: dict[str, Tensor]) -> Tensor:
        """tokens (B * K, T), memory (B, S, d) -> logits (B * K, T, V)."""
        x = self.embedding(tokens) * self.scale + self.positions[: tokens.shape[1]]
        x = self.dropout(x)
        for index, layer in self.numbered():
            x = layer(x, *layer.cross_attention.keys_values(memory))
            hidden[f"decoder.layers.{index}"] = x
        return self.head(self.norm(x))  # type: ignore[no-any-return]


class CnnTransformer(nn.Module):
    """The captioner; `image_size` in pixels, `max_length` tokens at most."""

    def __init__(
        self, settings: CnnTransformerSettings, vocabulary: int, image_size: int, max_length: int
    ) -> None:
        super().__init__()
        self.encoder = Encoder(settings, image_size)
        self.decoder = Decoder(settings, vocabulary, max_length)

    def forward(
        self, tokens: Tensor, images: Tensor | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (B * K, T, V) and the hidden states by module name, from pixels or features."""
        hidden: dict[str, Tensor] = {}
        if features is None:
            assert images is not None
            features = self.encoder.features(images)
        memory = self.encoder.attend(self.encoder.project(features.float()), hidden)
        return self.decoder(tokens, memory, hidden), hidden


class GridFeatures(nn.Module):
    """The convolutional part and what reads it, traceable alone, under the model's own names."""

    def __init__(self, model: CnnTransformer) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder.project(self.encoder.features(images))


class EncoderGraph(nn.Module):
    """images (B, H, W, 3) -> all the decoder needs: cross keys and values, and empty caches."""

    def __init__(self, model: CnnTransformer) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        memory = self.encoder.attend(self.encoder.project(self.encoder.features(images)), {})
        state: list[Tensor] = []
        for _, layer in self.decoder.numbered():
            own = layer.self_attention
            empty = memory.new_zeros(images.shape[0], own.heads, 0, own.head_dim)
            state += [*layer.cross_attention.keys_values(memory), empty, empty]
        return tuple(state)


class DecoderGraph(nn.Module):
    """Token (B, 1), position (1,) and the state -> logits (B, V) and longer caches."""

    def __init__(self, model: CnnTransformer) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(self, token: Tensor, position: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        decoder = self.decoder
        x = decoder.embedding(token) * decoder.scale + decoder.positions[position]
        grown: list[Tensor] = []
        for place, (_, layer) in enumerate(decoder.numbered()):
            cross_keys, cross_values, keys, values = state[4 * place : 4 * place + 4]
            x, keys, values = layer.step(x, keys, values, cross_keys, cross_values)
            grown += [keys, values]
        return (decoder.head(decoder.norm(x))[:, 0], *grown)


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
