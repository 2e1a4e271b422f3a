"""A compressed model is rebuilt from the names and shapes of its tensors alone."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_captioner, tiny_task
from torch import nn

from autocomp.compress.channels import prune_channels_
from autocomp.compress.depth import drop_layers_
from autocomp.compress.transformer import prune_heads_, prune_width_
from autocomp.errors import CheckpointError
from autocomp.models.cnn_transformer import CnnTransformer
from autocomp.models.reshape import reshape_, tensors
from autocomp.policy import DropLayers, PruneChannels, PruneHeads, PruneWidth
from autocomp.tasks.captioning import Captioning

pytestmark = pytest.mark.usefixtures("tiny")
MODEL = {"encoder_layers": 1, "decoder_layers": 3}


def compress_(task: Captioning, model: CnnTransformer) -> None:
    graph, inputs = task.channel_graph(model)
    prune_channels_(graph, PruneChannels(layers="encoder.backbone", ratio=0.4), inputs)
    drop_layers_(model, DropLayers(layers="decoder.layers", keep=2), lambda: None)
    drop_layers_(model, DropLayers(layers="encoder.layers", keep=0), lambda: None)
    ratio = {"decoder.layers.2": 0.5}
    prune_heads_(model, PruneHeads(layers="decoder", ratio=ratio))
    prune_width_(model, PruneWidth(layers="decoder.layers.0.ffn", ratio=0.5, round_to=8))


def rebuild(model: nn.Module, task: Captioning) -> nn.Module:
    fresh = task.build()
    reshape_(fresh, {name: tuple(tensor.shape) for name, tensor in tensors(model).items()})
    missing, unexpected = fresh.load_state_dict(tensors(model), strict=False)
    assert not unexpected
    assert all(n.endswith(("num_batches_tracked", "head.weight")) for n in missing)
    return fresh.eval()


@pytest.mark.parametrize("tied", [True, False], ids=["tied head", "own head"])
@torch.no_grad()
def test_a_compressed_model_reloads_exactly(tied: bool) -> None:
    task = tiny_task({**MODEL, "tied_head": tied})
    model = tiny_captioner(task)
    compress_(task, model)
    fresh = rebuild(model, task)
    tokens, images = torch.tensor([[1, 5, 6]]), torch.arange(32 * 32 * 3).view(1, 32, 32, 3) % 256
    assert torch.equal(model(tokens, images.byte())[0], fresh(tokens, images.byte())[0])
    assert list(fresh.decoder.layers) == ["0", "2"]
    assert fresh.decoder.layers["2"].self_attention.heads == 1
    assert (fresh.decoder.head.weight is fresh.decoder.embedding.weight) == tied


def test_modules_announce_the_sizes_of_their_tensors() -> None:
    task = tiny_task(MODEL)
    model = tiny_captioner(task)
    compress_(task, model)
    fresh = rebuild(model, task)
    for name, module in fresh.named_modules():
        if isinstance(module, nn.Conv2d):
            shape = (module.out_channels, module.in_channels // module.groups)
        elif isinstance(module, nn.Linear):
            shape = (module.out_features, module.in_features)
        elif isinstance(module, nn.BatchNorm2d):
            shape = (module.num_features,)
        else:
            continue
        assert module.weight.shape[: len(shape)] == shape, name


def test_depthwise_convolutions_stay_depthwise() -> None:
    net = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=2))
    reshape_(net, {"0.weight": (5, 1, 3, 3), "0.bias": (5,)} | shapes(net[1], "1"))
    assert (net[0].groups, net[0].in_channels, net[0].out_channels) == (5, 5, 5)
    assert (net[1].groups, net[1].in_channels, net[1].out_channels) == (2, 8, 8)


def test_the_same_shapes_change_nothing() -> None:
    model = tiny_captioner(tiny_task(MODEL))
    before = {name: tensor.clone() for name, tensor in tensors(model).items()}
    reshape_(model, shapes(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(model).items())


@pytest.mark.parametrize(
    ("remove", "add", "message"),
    [
        ("decoder.norm.weight", None, "'decoder.norm.weight' is missing"),
        (None, "decoder.layers.9.ffn.up.weight", "'decoder.layers.9.ffn.up.weight' is not one of"),
        ("decoder.layers.0.ffn.up.bias", None, "'decoder.layers.0.ffn.up.bias' is missing"),
    ],
    ids=["missing", "unknown", "half a layer"],
)
def test_tensors_of_another_model_are_refused(
    remove: str | None, add: str | None, message: str
) -> None:
    model = tiny_task(MODEL).build()
    wanted = shapes(model)
    if remove:
        del wanted[remove]
    if add:
        wanted[add] = (1,)
    with pytest.raises(CheckpointError, match=message.replace(".", r"\.")):
        reshape_(model, wanted)


def test_a_shared_tensor_is_kept_once_and_counters_are_not() -> None:
    names = set(tensors(tiny_task(MODEL).build()))
    assert "decoder.embedding.weight" in names
    assert "decoder.head.weight" not in names
    assert not any(name.endswith("num_batches_tracked") for name in names)
    assert "encoder.backbone.bn_stem.running_var" in names
    assert "decoder.positions" not in names


def shapes(model: nn.Module, prefix: str = "") -> dict[str, tuple[int, ...]]:
    named = tensors(model).items()
    return {f"{prefix}.{name}".strip("."): tuple(tensor.shape) for name, tensor in named}
