"""Captioning datasets by kind: the settings a space file gives, and the split they load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, ValidationError

from autocomp.data.coco_captions import CocoCaptionsSettings, load_coco_captions
from autocomp.data.flickr8k import Flickr8kSettings, load_flickr8k
from autocomp.data.karpathy import KarpathySettings, load_karpathy
from autocomp.data.scenes import ScenesSettings, load_scenes
from autocomp.data.split import SPLITS, CaptionSplit, SplitName
from autocomp.decisions import Decision, problems
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


def _choose(value: Any) -> Any:
    """The settings of the kind `value` names, so that a mistake's place has no union tag in it."""
    if isinstance(value, Decision):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping with a kind, but got {value!r}")
    if "kind" not in value:
        raise ValueError(f"kind: must be given, one of {', '.join(DATASETS)}, but is missing")
    if value["kind"] not in list(DATASETS):
        raise ValueError(unknown("kind", str(value["kind"]), list(DATASETS)))
    try:
        return DATASETS[value["kind"]].settings.model_validate(value)
    except ValidationError as failure:
        raise ValueError("\n".join(problems(failure, ""))) from None


DataSettings = Annotated[
    Annotated[
        CocoCaptionsSettings | Flickr8kSettings | KarpathySettings | ScenesSettings,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_choose),
]


def load_split(settings: DataSettings, split: SplitName) -> CaptionSplit:
    """One split of the data; no other is read. `DataError` says what is missing or damaged."""
    if split not in SPLITS:
        raise DataError(unknown("split", split, SPLITS))
    return DATASETS[settings.kind].load(settings, split)
