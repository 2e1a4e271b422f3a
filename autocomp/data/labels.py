"""Labelled datasets by kind: images whose one reference is the name of their class."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from autocomp.data.cifar10 import Cifar10Settings, load_cifar10
from autocomp.data.datasets import Dataset, chooser, load_from
from autocomp.data.image_folder import ImageFolderSettings, load_image_folder
from autocomp.data.split import ImageSplit, SplitName

DATASETS: dict[str, Dataset] = {
    "cifar10": Dataset(Cifar10Settings, load_cifar10),
    "image_folder": Dataset(ImageFolderSettings, load_image_folder),
}

LabelledData = Annotated[
    Annotated[Cifar10Settings | ImageFolderSettings, Field(discriminator="kind")],
    BeforeValidator(chooser(DATASETS)),
]


def load_labelled(settings: LabelledData, split: SplitName) -> ImageSplit:
    """One split of the data; no other is read. `DataError` says what is missing or damaged."""
    return load_from(DATASETS, settings, split)
