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
from autocomp.models.captioner import Captioner, GridEncoder, State
from autocomp.models.transformer import DecoderLayer, EncoderLayer, grid_positions, positions
from autocomp.models.unpadding import Unpadding


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


class Encoder(GridEncoder):
    """uint8 pixels (B, H, W, 3) -> memory (B, S, d)."""

    positions: Tensor

    def __init__(self, settings: CnnTransformerSettings, image_size: int) -> None:
        super().__init__(settings.backbone, settings.weights, settings.d_model, image_size)
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
        grid = grid_positions(self.cells, settings.d_model)
        self.register_buffer("positions", grid, persistent=False)

    def resize_(self, image_size: int) -> int:
        """As any encoder does; the features lie over the same grid as the dense model's."""
        cells = super().resize_(image_size)
        self.positions = grid_positions(cells, self.positions.shape[1], over=self.cells)
        return cells

    def attend(self, projected: Tensor, hidden: State) -> Tensor:
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

    def forward(self, tokens: Tensor, memory: Tensor, hidden: State) -> Tensor:
        """tokens (B * K, T), memory (B, S, d) -> logits (B * K, T, V), zero where nothing is."""
        unpadding = Unpadding(tokens)
        words = tokens.flatten()[unpadding.places]
        x = self.embedding(words) * self.scale + self.positions[unpadding.places % tokens.shape[1]]
        x = self.dropout(x)
        for index, layer in self.numbered():
            x = layer(x, *layer.cross_attention.keys_values(memory), unpadding)
            hidden[f"decoder.layers.{index}"] = unpadding.restore(x)
        return unpadding.restore(self.head(self.norm(x)))


class CnnTransformer(Captioner):
    """The captioner; `image_size` in pixels, `max_length` tokens at most."""

    encoder: Encoder
    decoder: Decoder

    def __init__(
        self, settings: CnnTransformerSettings, vocabulary: int, image_size: int, max_length: int
    ) -> None:
        super().__init__()
        self.encoder = Encoder(settings, image_size)
        self.decoder = Decoder(settings, vocabulary, max_length)

    def forward(
        self, tokens: Tensor, images: Tensor | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        hidden: State = {}
        memory = self.encoder.attend(self.projected(images, features), hidden)
        return self.decoder(tokens, memory, hidden), hidden

    def begin(self, images: Tensor) -> State:
        """Of each layer the keys and values of the image, and empty caches of the tokens'."""
        memory = self.encoder.attend(self.encoder.project(self.encoder.features(images)), {})
        state: State = {}
        for index, layer in self.decoder.numbered():
            own = layer.self_attention
            empty = memory.new_zeros(images.shape[0], own.heads, 0, own.head_dim)
            cross_keys, cross_values = layer.cross_attention.keys_values(memory)
            state |= {f"cross_k_{index}": cross_keys, f"cross_v_{index}": cross_values}
            state |= {f"self_k_{index}": empty, f"self_v_{index}": empty}
        return state

    def step(self, token: Tensor, position: Tensor, state: State) -> tuple[Tensor, State]:
        decoder = self.decoder
        x = decoder.embedding(token) * decoder.scale + decoder.positions[position]
        grown: State = {}
        for index, layer in decoder.numbered():
            names = (f"self_k_{index}", f"self_v_{index}")
            caches = (state[name] for name in (*names, f"cross_k_{index}", f"cross_v_{index}"))
            x, *longer = layer.step(x, *caches)
            grown |= dict(zip(names, longer, strict=True))
        return decoder.head(decoder.norm(x))[:, 0], grown

    def growing(self, name: str) -> int | None:
        return 2 if name.startswith("self") else None
