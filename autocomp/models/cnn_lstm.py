"""CNN + recurrent captioners: soft attention over the grid, or the merge of image and words.

Attention: "Show, Attend and Tell" (1502.03044), with its deep output. Merge: "What is the Role of
Recurrent Neural Networks in an Image Caption Generator?" (1708.02043), where the recurrent net
reads words alone and the image joins what it says.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from autocomp.decisions import Decision
from autocomp.models.captioner import Captioner, GridEncoder, State
from autocomp.models.recurrent import CELLS, Memory
from autocomp.models.units import HiddenUnits, UnitEnd
from autocomp.models.unpadding import caption_lengths

BLOCK = 32
"""Captions of a training batch that end together; see `_packed`."""


class CnnLstmSettings(Decision):
    """The dense architecture. `weights` are the backbone's: `default`, `none` or a path.

    `width` is that of the projected features and of the words, `units` the recurrent net's,
    `attention` that of the space in which features and state are compared, by default `width`.
    """

    kind: Literal["cnn_lstm"]
    backbone: str = "tiny_resnet"
    weights: str = "none"
    decoder: Literal["attention", "merge"] = "attention"
    cell: Literal["lstm", "gru"] = "lstm"
    width: int = Field(default=256, ge=8)
    units: int = Field(default=512, ge=8)
    attention: int | None = Field(default=None, ge=8)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    tied_head: bool = True

    @model_validator(mode="after")
    def _check_attention(self) -> CnnLstmSettings:
        if self.decoder == "merge" and self.attention is not None:
            raise ValueError(
                "attention must be left out with decoder: merge, which has none, "
                f"but got {self.attention}"
            )
        return self


class RecurrentDecoder(HiddenUnits):
    """Words and what is seen -> logits, over whole captions or one token at a time."""

    def __init__(self, settings: CnnLstmSettings, vocabulary: int) -> None:
        super().__init__()
        width, units = settings.width, settings.units
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.cell = CELLS[settings.cell](width, units)
        self.out = nn.Linear(units, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if settings.tied_head:
            self.head.weight = self.embedding.weight
        else:
            nn.init.normal_(self.head.weight, std=width**-0.5)
        self.dropout = nn.Dropout(settings.dropout)
        self.scale = math.sqrt(width)

    @abstractmethod
    def start(self, grid: Tensor) -> State:
        """The state before the first word, of a projected grid (B, S, width)."""

    @abstractmethod
    def advance(self, drive: Tensor, state: State) -> tuple[Tensor, State]:
        """What is said (B, width) after a step, and what of the state changes.

        `drive` (B, gates * units) is what the cell's input makes of the word.
        """

    def drive(self, tokens: Tensor) -> Tensor:
        """The cell's part of words (...): (..., gates * units)."""
        return self.cell.input(self.dropout(self.embedding(tokens) * self.scale))  # type: ignore[no-any-return]

    def logits(self, said: Tensor) -> Tensor:
        return self.head(self.dropout(self.norm(said)))  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor, grid: Tensor, hidden: State) -> Tensor:
        """tokens (B * K, T), grid (B, S, width) -> logits (B * K, T, V).

        Longest captions lie first, so that each step computes only those that go on; after a
        caption's end logits mean nothing.
        """
        words = _packed(tokens)
        assert words.sorted_indices is not None
        images = words.sorted_indices // (len(tokens) // len(grid))
        state = {name: part[images] for name, part in self.start(grid).items()}

        counts = words.batch_sizes.tolist()
        said, outputs = [], []
        for drive in self.drive(words.data).split(counts):
            state = {name: part[: len(drive)] for name, part in state.items()}
            word, changed = self.advance(drive, state)
            state |= changed
            said.append(word)
            outputs.append(changed["h"])
        steps = tokens.shape[1]
        hidden["decoder.cell"] = _padded(torch.cat(outputs), words, steps)  # (B * K, T, units)
        return _padded(self.logits(torch.cat(said)), words, steps)

    def memory(self, state: State) -> Memory:
        """The cell's part of the state."""
        return tuple(state[name] for name in self.cell.names)

    def unit_ends(self) -> list[UnitEnd]:
        return [*self.cell.unit_ends(), UnitEnd(self.out, 1)]


class AttentionDecoder(RecurrentDecoder):
    """At each word a weighted mean of the grid, the weights from what was said before."""

    def __init__(self, settings: CnnLstmSettings, vocabulary: int) -> None:
        super().__init__(settings, vocabulary)
        width, units, gates = settings.width, settings.units, self.cell.gates
        self.first = nn.Linear(width, len(self.cell.names) * units)
        attention = settings.attention or width
        self.keys = nn.Linear(width, attention, bias=False)
        self.query = nn.Linear(units, attention)
        self.energy = nn.Linear(attention, 1, bias=False)
        self.context = nn.Linear(width, gates * units, bias=False)
        self.look = nn.Linear(width, width, bias=False)

    def start(self, grid: Tensor) -> State:
        grid = self.dropout(grid)
        first = self.first(grid.mean(dim=1)).tanh().chunk(len(self.cell.names), dim=1)
        state = {"grid": grid, "keys": self.keys(grid)}
        return state | dict(zip(self.cell.names, first, strict=True))

    def advance(self, drive: Tensor, state: State) -> tuple[Tensor, State]:
        query = self.query(state["h"]).unsqueeze(1)  # (B, 1, attention)
        energies = self.energy((state["keys"] + query).tanh()).transpose(1, 2)  # (B, 1, S)
        seen = (energies.softmax(dim=2) @ state["grid"]).squeeze(1)  # (B, width)
        memory = self.cell(drive + self.context(seen), self.memory(state))
        said = self.out(self.dropout(memory[0])) + self.look(seen)
        return said, dict(zip(self.cell.names, memory, strict=True))

    def unit_ends(self) -> list[UnitEnd]:
        first = UnitEnd(self.first, 0, len(self.cell.names))
        others = [UnitEnd(self.query, 1), UnitEnd(self.context, 0, self.cell.gates), first]
        return [*super().unit_ends(), *others]


class MergeDecoder(RecurrentDecoder):
    """The mean of the grid and what the words came to, added."""

    def __init__(self, settings: CnnLstmSettings, vocabulary: int) -> None:
        super().__init__(settings, vocabulary)
        self.image = nn.Linear(settings.width, settings.units)

    def start(self, grid: Tensor) -> State:
        image = self.image(self.dropout(grid.mean(dim=1)))
        return {"image": image, **{name: torch.zeros_like(image) for name in self.cell.names}}

    def advance(self, drive: Tensor, state: State) -> tuple[Tensor, State]:
        memory = self.cell(drive, self.memory(state))
        said = self.out(self.dropout((state["image"] + memory[0]).relu()))
        return said, dict(zip(self.cell.names, memory, strict=True))

    def unit_ends(self) -> list[UnitEnd]:
        return [*super().unit_ends(), UnitEnd(self.image, 0)]


def _packed(tokens: Tensor) -> PackedSequence:
    """Captions (N, T), longest first, without most of the padding at their ends.

    Those of a block end together: for a number of captions that a matrix product in bf16 has not
    seen, oneDNN writes a kernel first, and that takes longer than the product.
    """
    lengths = caption_lengths(tokens).clamp(min=1).cpu()
    order = lengths.argsort(descending=True)
    first_of_block = torch.arange(len(order)) // BLOCK * BLOCK
    lengths[order] = lengths[order[first_of_block]]
    return pack_padded_sequence(tokens, lengths, batch_first=True, enforce_sorted=False)


def _padded(values: Tensor, words: PackedSequence, steps: int) -> Tensor:
    """What was computed of packed `words` (sum of lengths, d), as (N, steps, d)."""
    packed = PackedSequence(values, *words[1:])
    padded, _ = pad_packed_sequence(packed, batch_first=True, total_length=steps)
    return padded


DECODERS: dict[str, Callable[[CnnLstmSettings, int], RecurrentDecoder]] = {
    "attention": AttentionDecoder,
    "merge": MergeDecoder,
}


class CnnLstm(Captioner):
    """The captioner; `image_size` in pixels."""

    decoder: RecurrentDecoder

    def __init__(self, settings: CnnLstmSettings, vocabulary: int, image_size: int) -> None:
        super().__init__()
        self.encoder = GridEncoder(settings.backbone, settings.weights, settings.width, image_size)
        self.decoder = DECODERS[settings.decoder](settings, vocabulary)

    def forward(
        self, tokens: Tensor, images: Tensor | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        grid = self.projected(images, features)
        hidden = {"encoder.projection": grid}
        return self.decoder(tokens, grid, hidden), hidden

    def begin(self, images: Tensor) -> State:
        return self.decoder.start(self.encoder.project(self.encoder.features(images)))

    def step(self, token: Tensor, position: Tensor, state: State) -> tuple[Tensor, State]:
        said, changed = self.decoder.advance(self.decoder.drive(token).squeeze(1), state)
        return self.decoder.logits(said), changed
