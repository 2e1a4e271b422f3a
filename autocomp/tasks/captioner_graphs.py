"""A captioner as the graphs that ship: the encoder, and one step of the decoder."""

from __future__ import annotations

import torch

from autocomp.deploy.caption import BOS
from autocomp.models.cnn_transformer import CnnTransformer, DecoderGraph, EncoderGraph
from autocomp.tasks.base import Graph


def captioner_graphs(captioner: CnnTransformer, image_size: int) -> dict[str, Graph]:
    """What becomes of an image once, and of a token at each step, with a cache in between."""
    images = torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8)
    names = [
        f"{kind}_{index}"
        for index in captioner.decoder.layers
        for kind in ("cross_k", "cross_v", "self_k", "self_v")
    ]
    encoder = EncoderGraph(captioner)
    with torch.no_grad():
        state = dict(zip(names, encoder(images), strict=True))
    # a trace through an empty cache would record its length as a constant
    example = {
        name: torch.cat([array, array.new_zeros(*array.shape[:2], 2, array.shape[3])], dim=2)
        if name.startswith("self")
        else array
        for name, array in state.items()
    }
    axes = {name: {0: "batch", **({2: "past"} if "self" in name else {})} for name in names}
    token = {"token": torch.full((1, 1), BOS), "position": torch.tensor([2])}
    grown = tuple(name for name in names if name.startswith("self"))
    return {
        "encoder": Graph(
            encoder, {"images": images}, tuple(names), {"images": {0: "batch"}, **axes}
        ),
        "decoder": Graph(
            DecoderGraph(captioner),
            {**token, **example},
            ("logits", *(f"{name}_next" for name in grown)),
            {"token": {0: "batch"}, "logits": {0: "batch"}, **axes}
            | {f"{name}_next": {0: "batch", 2: "length"} for name in grown},
            sequential=True,
        ),
    }
