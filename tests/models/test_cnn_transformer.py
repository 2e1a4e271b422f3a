"""What is particular to the Transformer captioner: its layers, its settings, its backbones."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tiny_models import tiny_captioner, tiny_task

from autocomp.decisions import validate
from autocomp.deploy.caption import BOS
from autocomp.errors import SpaceError, UserError
from autocomp.models.cnn_transformer import CnnTransformer, CnnTransformerSettings

pytestmark = pytest.mark.usefixtures("tiny")
TOKENS = torch.tensor([[BOS, 7, 9, 4, 5], [BOS, 5, 6, 8, 10]])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 32, 32, 3), generator=torch.Generator().manual_seed(0)).byte()


@torch.no_grad()
def test_an_image_computes_the_same_in_a_batch_and_alone(images: torch.Tensor) -> None:
    model = tiny_captioner(tiny_task({"encoder_layers": 1}))
    together, _ = model(TOKENS, images)
    for row in range(2):
        alone, _ = model(TOKENS[row : row + 1], images[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)


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
