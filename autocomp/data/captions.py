"""Captioning datasets by kind: the settings a space file gives, and the split they load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field

from autocomp.data.coco_captions import CocoCaptionsSettings, load_coco_captions
from autocomp.data.flickr8k import Flickr8kSettings, load_flickr8k
from autocomp.data.karpathy import KarpathySettings, load_karpathy
from autocomp.data.scenes import ScenesSettings, load_scenes
from autocomp.data.split import SPLITS, CaptionSplit, SplitName
from autocomp.decisions import Decision, of_kind
from autocomp.errors import DataError, unknown

__all__ = [
    "DATASETS",
    "SPLITS",
    "CaptionSplit",
    "DataSettings",
    "Dataset",
    "SplitName",
    "load_split",
]


class Dataset(NamedTuple):
    """What a kind of data is made of: its settings and `load(settings, split)`."""

    settings: type[Decision]
    load: Callable[[Any, SplitName], CaptionSplit]


DATASETS: dict[str, Dataset] = {
    "coco_captions": Dataset(CocoCaptionsSettings, load_coco_captions),
    "flickr8k": Dataset(Flickr8kSettings, load_flickr8k),
    "karpathy": Dataset(KarpathySettings, load_karpathy),
    "scenes": Dataset(ScenesSettings, load_scenes),
}


_SETTINGS = {kind: one.settings for kind, one in DATASETS.items()}
DataSettings = Annotated[
    Annotated[
        CocoCaptionsSettings | Flickr8kSettings | KarpathySettings | ScenesSettings,
        Field(discriminator="kind"),
    ],
    BeforeValidator(lambda value: of_kind(value, _SETTINGS)),
]


def load_split(settings: DataSettings, split: SplitName) -> CaptionSplit:
    """One split of the data; no other is read. `DataError` says what is missing or damaged."""
    if split not in SPLITS:
        raise DataError(unknown("split", split, SPLITS))
    return DATASETS[settings.kind].load(settings, split)
