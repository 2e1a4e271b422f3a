"""What every kind of data has, and how a space file's `data` section chooses one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from autocomp.data.split import SPLITS, ImageSplit, SplitName
from autocomp.decisions import Decision, of_kind
from autocomp.errors import DataError, unknown


class Dataset(NamedTuple):
    """What a kind of data is made of: its settings and `load(settings, split)`."""

    settings: type[Decision]
    load: Callable[[Any, SplitName], ImageSplit]


Datasets = Mapping[str, Dataset]


def chooser(datasets: Datasets) -> Callable[[Any], Any]:
    """A validator that makes a section the settings of the kind it names."""

    settings = {kind: one.settings for kind, one in datasets.items()}
    return lambda value: of_kind(value, settings)


def load_from(datasets: Datasets, settings: Any, split: SplitName) -> ImageSplit:
    """One split of the data; no other is read. `DataError` says what is missing or damaged."""
    if split not in SPLITS:
        raise DataError(unknown("split", split, SPLITS))
    return datasets[settings.kind].load(settings, split)
