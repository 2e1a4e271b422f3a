"""What every kind of data has, and how a space file's `data` section chooses one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from autocomp.data.split import SPLITS, ImageSplit, SplitName
from autocomp.decisions import Decision, problems
from autocomp.errors import DataError, unknown


class Dataset(NamedTuple):
    """What a kind of data is made of: its settings and `load(settings, split)`."""

    settings: type[Decision]
    load: Callable[[Any, SplitName], ImageSplit]


Datasets = Mapping[str, Dataset]


def chooser(datasets: Datasets) -> Callable[[Any], Any]:
    """A validator that makes a section the settings of the kind it names.

    Pydantic's own unions would put a tag into the place of every mistake.
    """

    def choose(value: Any) -> Any:
        if isinstance(value, Decision):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a mapping with a kind, but got {value!r}")
        if "kind" not in value:
            raise ValueError(f"kind: must be given, one of {', '.join(datasets)}, but is missing")
        if value["kind"] not in list(datasets):
            raise ValueError(unknown("kind", str(value["kind"]), list(datasets)))
        try:
            return datasets[value["kind"]].settings.model_validate(value)
        except ValidationError as failure:
            raise ValueError("\n".join(problems(failure, ""))) from None

    return choose


def load_from(datasets: Datasets, settings: Any, split: SplitName) -> ImageSplit:
    """One split of the data; no other is read. `DataError` says what is missing or damaged."""
    if split not in SPLITS:
        raise DataError(unknown("split", split, SPLITS))
    return datasets[settings.kind].load(settings, split)
