"""What tasks on images share, whatever they say of one: splits, sizes, and how a photo is read."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, TypeVar

import numpy as np

from autocomp.data.images import read_image
from autocomp.data.split import ImageSplit, SplitName

Own = TypeVar("Own", bound="ImageTask")
log = logging.getLogger(__name__)


class ImageTask(ABC):
    """The part of a `Task` that its images decide on.

    `unresized` is the task with the images as the data settings have them, where this one has
    others: `image_size` pixels a side.
    """

    def __init__(self: Own, image_size: int, unresized: Own | None = None) -> None:
        self.image_size = image_size
        self._unresized: Any = unresized
        self._resized: dict[int, Any] = {}
        self._splits: dict[str, ImageSplit] = {}

    @abstractmethod
    def load(self, name: SplitName) -> ImageSplit:
        """A split as the data settings have it."""

    @abstractmethod
    def at(self: Own, image_size: int) -> Own:
        """This task, whose images are those of the data, with images of another size."""

    def resized(self: Own, image_size: int) -> Own:
        dense: Own = self._unresized or self
        if image_size == dense.image_size:
            return dense
        if image_size not in dense._resized:
            dense._resized[image_size] = dense.at(image_size)
        found: Own = dense._resized[image_size]
        return found

    def split(self, name: SplitName) -> ImageSplit:
        if name not in self._splits and self._unresized is not None:
            self._splits[name] = self._unresized.split(name).resized(self.image_size)
        elif name not in self._splits:
            self._splits[name] = self.load(name)
            for line in self._splits[name].left_out:
                log.warning(line)
        return self._splits[name]

    def left_out(self) -> list[str]:
        return [line for split in self._splits.values() for line in split.left_out]

    def size(self, split: SplitName) -> int:
        return len(self.split(split))

    def names(self, split: SplitName) -> tuple[str, ...]:
        return self.split(split).names

    def inputs(self, split: SplitName, start: int, stop: int) -> np.ndarray:
        return np.array(self.split(split).images[start:stop])

    def raw_inputs(self, split: SplitName, count: int) -> list[bytes]:
        images = self.split(split)
        return [images.jpeg(index) for index in range(min(count, len(images)))]

    def read(self, raw: bytes) -> np.ndarray:
        return read_image(raw, self.image_size)[None]

    def said(self, prediction: Any) -> str:
        return str(prediction)

    def reference(self, split: SplitName, index: int) -> str:
        return self.split(split).references[index][0]
