"""Layers that stay keep their weights and the names they have in the dense model."""

from __future__ import annotations

import pytest
import torch
from tiny_models import whole_captions
from torch import nn

from autocomp.compress.depth import SELECTIONS, block_influence, drop_layers_, layer_containers
from autocomp.errors import PolicyError
from autocomp.models.transformer import DecoderLayer, EncoderLayer
from autocomp.policy import DropLayers


class Model(nn.Module):
    def __init__(self, layers: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.ModuleDict({"0": EncoderLayer(16, 2, 32, dropout=0.0)})
        self.decoder = nn.ModuleDict(
            {str(i): DecoderLayer(16, 2, 32, dropout=0.0) for i in range(layers)}
        )

    def forward(self) -> None:
        x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
        for layer in self.decoder.values():
            x = whole_captions(layer, x, memory=x)


@pytest.mark.parametrize(
    ("select", "layers", "keep", "kept"),
    [
        ("uniform", 6, 6, "012345"),
        ("uniform", 6, 5, "01235"),
        ("uniform", 6, 4, "0135"),
        ("uniform", 6, 3, "025"),
        ("uniform", 6, 2, "05"),
        ("uniform", 6, 1, "5"),
        ("uniform", 3, 2, "02"),
        ("first", 6, 2, "01"),
        ("last", 6, 2, "45"),
    ],
)
def test_which_layers_stay(select: str, layers: int, keep: int, kept: str) -> None:
    model = Model(layers)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step = DropLayers(layers="decoder", keep=keep, select=select)  # type: ignore[arg-type]
    assert drop_layers_(model, step, model) == []
    assert "".join(model.decoder) == kept
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_dropping_again_counts_what_is_left() -> None:
    model = Model()
    drop_layers_(model, DropLayers(layers="decoder", keep=3), model)
    drop_layers_(model, DropLayers(layers="decoder", keep=2, select="last"), model)
    assert list(model.decoder) == ["2", "5"]


@pytest.mark.parametrize("idle", ["0", "2", "5"])
def test_block_influence_drops_the_layer_that_changes_nothing(idle: str) -> None:
    model = Model()
    with torch.no_grad():
        for block in ("self_attention.o", "cross_attention.o", "ffn.down"):
            for parameter in model.decoder[idle].get_submodule(block).parameters():
                parameter.zero_()
    kept = block_influence(model.decoder, 5, model)
    assert set(kept) == set("012345") - {idle}
    drop_layers_(model, DropLayers(layers="decoder", keep=5, select="block_influence"), model)
    assert idle not in model.decoder
    assert not any(layer._forward_hooks for layer in model.modules())


def test_layers_may_be_called_by_name() -> None:
    layers = nn.ModuleDict({name: nn.Linear(8, 8) for name in "abc"})
    with torch.no_grad():
        layers["b"].weight.copy_(torch.eye(8))
        layers["b"].bias.zero_()

    def forward() -> None:
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
        for layer in layers.values():
            x = layer(input=x)

    assert set(block_influence(layers, 2, forward)) == {"a", "c"}


def test_block_influence_keeps_the_order_of_the_layers() -> None:
    model = Model()
    drop_layers_(model, DropLayers(layers="decoder", keep=4, select="block_influence"), model)
    assert list(model.decoder) == sorted(model.decoder)
    assert len(model.decoder) == 4


def test_only_block_influence_runs_the_model() -> None:
    def refuse() -> None:
        raise AssertionError("the model was run")

    for select in set(SELECTIONS) - {"block_influence"}:
        SELECTIONS[select](Model().decoder, 2, refuse)


def test_asking_for_more_layers_than_there_are_is_reported() -> None:
    model = Model(layers=2)
    found = drop_layers_(model, DropLayers(layers="decoder", keep=3), model)
    assert found == ["decoder: asked to keep 3 layers, and it has 2"]
    assert list(model.decoder) == ["0", "1"]


def test_an_encoder_can_be_emptied_and_a_decoder_cannot() -> None:
    model = Model()
    assert drop_layers_(model, DropLayers(layers="encoder", keep=0), model) == []
    assert len(model.encoder) == 0
    assert list(layer_containers(model)) == ["decoder"]
    with pytest.raises(PolicyError, match="keep: must be at least 1 for 'decoder', but got 0"):
        drop_layers_(model, DropLayers(layers="decoder", keep=0), model)


def test_a_container_that_is_not_there_is_an_error() -> None:
    with pytest.raises(PolicyError, match="but got 'decodr'; nearest: decoder, encoder"):
        drop_layers_(Model(), DropLayers(layers="decodr", keep=1), lambda: None)
