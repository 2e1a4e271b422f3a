"""The captioner computes the same whole, step by step, batched, alone, and without some layers."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import keep_heads_, tiny_captioner, tiny_task

from autocomp.decisions import validate
from autocomp.deploy.caption import BOS, PAD
from autocomp.errors import SpaceError, UserError
from autocomp.models.cnn_transformer import CnnTransformer, CnnTransformerSettings
from autocomp.tasks.base import torch_run

pytestmark = pytest.mark.usefixtures("tiny")
TOKENS = torch.tensor([[BOS, 7, 9, 4, 5], [BOS, 5, 6, 8, 10]])


def whole(model: CnnTransformer) -> None:
    pass


def fewer_heads(model: CnnTransformer) -> None:
    keep_heads_(model.decoder.numbered()[0][1].self_attention, [1])
    keep_heads_(model.decoder.numbered()[1][1].cross_attention, [0])


def fewer_layers(model: CnnTransformer) -> None:
    del model.decoder.layers["0"]
    model.encoder.layers.clear()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 32, 32, 3), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize("encoder_layers", [0, 1])
@pytest.mark.parametrize("change_", [whole, fewer_heads, fewer_layers])
@torch.no_grad()
def test_steps_with_a_cache_equal_the_full_forward_for_every_prefix(
    encoder_layers: int, change_: Any, images: torch.Tensor
) -> None:
    task = tiny_task({"encoder_layers": encoder_layers})
    model = tiny_captioner(task)
    change_(model)
    run = torch_run(task.graphs(model))
    state = run("encoder", images=images.numpy())
    for place in range(TOKENS.shape[1]):
        expected, _ = model(TOKENS[:, : place + 1], images)
        token = TOKENS[:, place : place + 1].numpy()
        outputs = run("decoder", token=token, position=np.array([place]), **state)
        np.testing.assert_allclose(outputs.pop("logits"), expected[:, -1], atol=1e-5)
        state.update({name.removesuffix("_next"): value for name, value in outputs.items()})


@torch.no_grad()
def test_an_image_computes_the_same_in_a_batch_and_alone(images: torch.Tensor) -> None:
    model = tiny_captioner(tiny_task({"encoder_layers": 1}))
    together, _ = model(TOKENS, images)
    for row in range(2):
        alone, _ = model(TOKENS[row : row + 1], images[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_features_stand_in_for_pixels(images: torch.Tensor) -> None:
    model = tiny_captioner(tiny_task())
    features = model.encoder.features(images)
    assert features.shape == (2, 16, 128)
    assert torch.equal(model(TOKENS, images)[0], model(TOKENS, features=features)[0])


@torch.no_grad()
def test_hidden_states_keep_the_names_of_the_dense_layers(images: torch.Tensor) -> None:
    model = tiny_captioner(tiny_task({"encoder_layers": 1, "decoder_layers": 3}))
    del model.decoder.layers["1"]
    _, hidden = model(TOKENS, images)
    assert list(hidden) == [
        "encoder.projection",
        "encoder.layers.0",
        "decoder.layers.0",
        "decoder.layers.2",
    ]


def test_a_later_token_changes_nothing_before_it(images: torch.Tensor) -> None:
    model, padded = tiny_captioner(tiny_task()), TOKENS.clone()
    padded[:, 3:] = PAD
    torch.testing.assert_close(model(TOKENS, images)[0][:, :3], model(padded, images)[0][:, :3])


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_the_embedding_if_tied(tied: bool) -> None:
    model = tiny_task({"tied_head": tied}).build()
    assert (model.decoder.head.weight is model.decoder.embedding.weight) == tied
    assert ("decoder.head.weight" in dict(model.named_parameters())) != tied


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "heads must divide d_model, but got heads=5, d_model=32; the nearest"),
        ({"d_model": 34, "heads": 2}, "d_model must be a multiple of 4, but got 34"),
        ({"decoder_layers": 0}, "model.decoder_layers: must be greater than or equal to 1"),
        ({"encoder_layer": 1}, "did you mean 'encoder_layers'"),
    ],
    ids=["heads", "d_model", "no decoder", "typing error"],
)
def test_settings_that_make_no_model_say_why(change: dict[str, Any], message: str) -> None:
    section = {"d_model": 32, "heads": 2, **change}
    with pytest.raises(SpaceError) as caught:
        validate(CnnTransformerSettings, section, "model", SpaceError)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "size", "message"),
    [
        ("test_vit", 160, "task.model.backbone: must compute features (1, C, h, w)"),
        ("swin_tiny_patch4_window7_224", 224, "must compute features (1, C, h, w) of an image"),
        ("alexnet", 32, "image_size: must be one the backbone takes, but 32 pixels"),
    ],
    ids=["no grid", "channels last", "too small"],
)
def test_a_backbone_that_gives_no_grid_is_refused(backbone: str, size: int, message: str) -> None:
    settings = CnnTransformerSettings(backbone=backbone, d_model=32, heads=2)
    with pytest.raises(UserError, match=re.escape(message)):
        CnnTransformer(settings, vocabulary=10, image_size=size, max_length=5)
