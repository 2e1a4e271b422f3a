"""Every captioner computes the same whole and step by step, dense and with parts removed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import (
    RECURRENT,
    SECTION,
    keep_heads_,
    recurrent_task,
    tiny_captioner,
    tiny_task,
)

from autocomp.compress.transformer import prune_width_
from autocomp.decisions import validate
from autocomp.deploy.caption import BOS, PAD
from autocomp.errors import SpaceError
from autocomp.models.captioner import Captioner
from autocomp.models.cnn_transformer import CnnTransformer
from autocomp.policy import PruneWidth
from autocomp.tasks.base import torch_run
from autocomp.tasks.captioning import Captioning, CaptioningSettings

pytestmark = pytest.mark.usefixtures("tiny")
TOKENS = torch.tensor([[BOS, 7, 9, 4, 5], [BOS, 5, 6, 8, 10]])


def whole(model: Captioner) -> None:
    pass


def fewer_heads(model: CnnTransformer) -> None:
    keep_heads_(model.decoder.numbered()[0][1].self_attention, [1])
    keep_heads_(model.decoder.numbered()[1][1].cross_attention, [0])


def fewer_layers(model: CnnTransformer) -> None:
    del model.decoder.layers["0"]
    model.encoder.layers.clear()


def fewer_units(model: Captioner) -> None:
    assert prune_width_(model, PruneWidth(layers="decoder", ratio=0.4, round_to=8)) == []


TASKS: dict[str, Callable[[], Captioning]] = {
    "transformer": tiny_task,
    "encoder layer": lambda: tiny_task({"encoder_layers": 1}),
    **{name: partial(recurrent_task, name) for name in RECURRENT},
}
CHANGED = [
    *((name, whole) for name in TASKS),
    *((name, change) for name in ("transformer", "encoder layer") for change in (fewer_heads,)),
    ("encoder layer", fewer_layers),
    *((name, fewer_units) for name in RECURRENT),
]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 32, 32, 3), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize(
    ("name", "change_"), CHANGED, ids=[f"{name}, {change.__name__}" for name, change in CHANGED]
)
@torch.no_grad()
def test_steps_equal_the_full_forward_for_every_prefix(
    name: str, change_: Any, images: torch.Tensor
) -> None:
    task = TASKS[name]()
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


@pytest.mark.parametrize("name", TASKS)
@torch.no_grad()
def test_features_stand_in_for_pixels(name: str, images: torch.Tensor) -> None:
    model = tiny_captioner(TASKS[name]())
    features = model.encoder.features(images)
    assert features.shape == (2, 16, 128)
    assert torch.equal(model(TOKENS, images)[0], model(TOKENS, features=features)[0])


@pytest.mark.parametrize("name", TASKS)
@torch.no_grad()
def test_a_later_token_changes_nothing_before_it(name: str, images: torch.Tensor) -> None:
    model, padded = tiny_captioner(TASKS[name]()), TOKENS.clone()
    padded[:, 3:] = PAD
    torch.testing.assert_close(model(TOKENS, images)[0][:, :3], model(padded, images)[0][:, :3])


@pytest.mark.parametrize("name", TASKS)
@torch.no_grad()
def test_padding_changes_nothing_before_it(name: str, images: torch.Tensor) -> None:
    task = TASKS[name]()
    model = tiny_captioner(task)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 7, (80,), generator=generator)  # in no order, of several blocks
    tokens = torch.randint(1, len(task.tokenizer), (80, 6), generator=generator) * (
        torch.arange(6) < lengths[:, None]
    )
    logits, hidden = model(tokens, images)
    for row, length in enumerate(lengths.tolist()):
        image = images[row // 40 : row // 40 + 1]
        alone, states = model(tokens[row : row + 1, :length], image)
        torch.testing.assert_close(logits[row, :length], alone[0], rtol=1e-4, atol=1e-5)
        for key in (key for key in states if key.startswith("decoder.")):
            torch.testing.assert_close(
                hidden[key][row, :length], states[key][0], rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("name", TASKS)
@torch.no_grad()
def test_captions_of_an_image_lie_side_by_side(name: str, images: torch.Tensor) -> None:
    model = tiny_captioner(TASKS[name]())
    twice = torch.stack([TOKENS[0], TOKENS[1], TOKENS[1], TOKENS[0]])
    logits, _ = model(twice, images)
    for row, image in enumerate((0, 0, 1, 1)):
        alone, _ = model(twice[row : row + 1], images[image : image + 1])
        torch.testing.assert_close(logits[row], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "model", [SECTION["model"], RECURRENT["lstm attention"]], ids=["transformer", "lstm"]
)
def test_the_head_is_the_embedding_if_tied(model: dict[str, Any], tied: bool) -> None:
    section = SECTION | {"model": model | {"tied_head": tied}}
    decoder = Captioning(CaptioningSettings.model_validate(section)).build().decoder
    assert (decoder.head.weight is decoder.embedding.weight) == tied
    assert ("head.weight" in dict(decoder.named_parameters())) != tied


@pytest.mark.parametrize("name", RECURRENT)
@torch.no_grad()
def test_removed_units_are_units_that_said_nothing(name: str, images: torch.Tensor) -> None:
    model = tiny_captioner(recurrent_task(name))
    silent = [3, 10, 17, 63, 40, 41, 42, 43]
    for linear, axis, blocks in model.decoder.unit_ends():
        units = linear.weight.shape[axis] // blocks
        places = [block * units + unit for block in range(blocks) for unit in silent]
        if axis:  # what reads them gets nothing, and what makes them makes next to nothing
            linear.weight[:, places] = 0
        else:
            linear.weight[places] *= 1e-3
    expected, _ = model(TOKENS, images)
    assert prune_width_(model, PruneWidth(layers="decoder", ratio=8 / 64, round_to=8)) == []
    assert model.decoder.out.weight.shape[1] == 56
    torch.testing.assert_close(model(TOKENS, images)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "cnn_lstm", "cell": "rnn"}, "model.cell: must be 'lstm' or 'gru'"),
        (
            {"kind": "cnn_lstm", "decoder": "merge", "attention": 64},
            "model: attention must be left out with decoder: merge",
        ),
        ({"kind": "cnn_lstn"}, "model.kind: must be one of cnn_lstm, cnn_transformer"),
        ({"kind": "cnn_lstm", "unit": 64}, "did you mean 'units'?"),
    ],
    ids=["cell", "attention", "kind", "typing error"],
)
def test_settings_that_make_no_model_say_why(section: dict[str, Any], message: str) -> None:
    whole = SECTION | {"model": section}
    with pytest.raises(SpaceError) as caught:
        validate(CaptioningSettings, whole, "task", SpaceError)
    assert message in str(caught.value)
