"""Captioning datasets by kind: the settings a space file gives, and the split they load."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from autocomp.data.coco_captions import CocoCaptionsSettings, load_coco_captions
from autocomp.data.datasets import Dataset, chooser, load_from
from autocomp.data.flickr8k import Flickr8kSettings, load_flickr8k
from autocomp.data.karpathy import KarpathySettings, load_karpathy
from autocomp.data.scenes import ScenesSettings, load_scenes
from autocomp.data.split import SPLITS, ImageSplit, SplitName

__all__ = [
    "DATASETS",
    "SPLITS",
    "DataSettings",
    "Dataset",
    "ImageSplit",
    "SplitName",
    "load_split",
]

DATASETS: dict[str, Dataset] = {
    "coco_captions": Dataset(CocoCaptionsSettings, load_coco_captions),
    "flickr8k": Dataset(Flickr8kSettings, load_flickr8k),
    "karpathy": Dataset(KarpathySettings, load_karpathy),
    "scenes": Dataset(ScenesSettings, load_scenes),
}

DataSettings = Annotated[
    Annotated[
        CocoCaptionsSettings | Flickr8kSettings | KarpathySettings | ScenesSettings,
        Field(discriminator="kind"),
    ],
    BeforeValidator(chooser(DATASETS)),
]


def load_split(settings: DataSettings, split: SplitName) -> ImageSplit:
    """One split of the data; no other is read. `DataError` says what is missing or damaged."""
    return load_from(DATASETS, settings, split)
