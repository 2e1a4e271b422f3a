"""A captioner as the graphs that ship: the encoder, and one step of the decoder."""

from __future__ import annotations

import torch

from autocomp.deploy.caption import BOS
from autocomp.models.captioner import Captioner, DecoderGraph, EncoderGraph
from autocomp.tasks.base import Graph


def captioner_graphs(captioner: Captioner, image_size: int) -> dict[str, Graph]:
    """What becomes of an image once, and of a token at each step, with the state in between."""
    images = torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8)
    token = {"token": torch.full((1, 1), BOS), "position": torch.tensor([2])}
    with torch.no_grad():
        state = captioner.begin(images)
        growing = {name: axis for name in state if (axis := captioner.growing(name)) is not None}
        # a trace through an empty cache would record its length as a constant
        example = {
            name: _longer(array, growing[name]) if name in growing else array
            for name, array in state.items()
        }
        _, changed = captioner.step(token["token"], token["position"], example)
    batch = {0: "batch"}
    axes = {name: batch | ({growing[name]: "past"} if name in growing else {}) for name in state}
    longer = {
        f"{name}_next": batch | ({growing[name]: "length"} if name in growing else {})
        for name in changed
    }
    return {
        "encoder": Graph(
            EncoderGraph(captioner), {"images": images}, tuple(state), {"images": batch, **axes}
        ),
        "decoder": Graph(
            DecoderGraph(captioner, tuple(state)),
            {**token, **example},
            ("logits", *longer),
            {"token": batch, "logits": batch, **axes, **longer},
            sequential=True,
        ),
    }


def _longer(cache: torch.Tensor, axis: int) -> torch.Tensor:
    """An empty cache with two steps in it."""
    shape = list(cache.shape)
    shape[axis] = 2
    return cache.new_zeros(shape)
