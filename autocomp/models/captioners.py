"""The kinds of captioner there are: the settings a space file gives, and the model they build."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field

from autocomp.decisions import Decision, of_kind
from autocomp.models.captioner import Captioner
from autocomp.models.cnn_lstm import CnnLstm, CnnLstmSettings
from autocomp.models.cnn_transformer import CnnTransformer, CnnTransformerSettings

Build = Callable[[Any, int, int, int], Captioner]
"""`build(settings, vocabulary, image_size, max_length)`: the dense model with initial weights."""


class CaptionerKind(NamedTuple):
    """Settings of a kind of captioner, and how it is built from them."""

    settings: type[Decision]
    build: Build


CAPTIONERS: dict[str, CaptionerKind] = {
    "cnn_transformer": CaptionerKind(CnnTransformerSettings, CnnTransformer),
    "cnn_lstm": CaptionerKind(
        CnnLstmSettings, lambda settings, words, size, _: CnnLstm(settings, words, size)
    ),
}
_SETTINGS = {kind: one.settings for kind, one in CAPTIONERS.items()}

CaptionerSettings = Annotated[
    Annotated[CnnTransformerSettings | CnnLstmSettings, Field(discriminator="kind")],
    BeforeValidator(lambda value: of_kind(value, _SETTINGS, default="cnn_transformer")),
]


def build_captioner(
    settings: CaptionerSettings, vocabulary: int, image_size: int, max_length: int
) -> Captioner:
    """The dense captioner for captions of at most `max_length` tokens of a `vocabulary`."""
    return CAPTIONERS[settings.kind].build(settings, vocabulary, image_size, max_length)
