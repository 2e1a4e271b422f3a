"""The embedded dataset: generated pictures of coloured shapes with five true captions each.

Nothing is downloaded. A scene depends on the seed, the split and its index alone, so a smaller
split is the start of a larger one.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from typing import Literal

from pydantic import Field

from autocomp.data.images import cached_stack
from autocomp.data.scene_captions import captions
from autocomp.data.scene_drawing import DRAWING, draw
from autocomp.data.scene_layout import Scene, draw_scene
from autocomp.data.split import ImageSplit, SplitName
from autocomp.decisions import Decision

# every possible scene belongs to one split by its checksum, so none can be in two
BUCKETS = 8
BUCKETS_OF: dict[SplitName, range] = {"train": range(6), "dev": range(6, 7), "test": range(7, 8)}


class ScenesSettings(Decision):
    """How many scenes each split has, and the side of an image in pixels."""

    kind: Literal["scenes"] = "scenes"
    seed: int = Field(default=0, ge=0)
    train: int = Field(default=2000, ge=1)
    dev: int = Field(default=300, ge=1)
    test: int = Field(default=300, ge=1)
    image_size: int = Field(default=64, ge=16, le=1024)


def load_scenes(settings: ScenesSettings, split: SplitName) -> ImageSplit:
    """The scenes of one split, drawn once and cached."""
    count: int = getattr(settings, split)
    scenes = [scene_at(settings.seed, split, index) for index in range(count)]
    digest = hashlib.sha256(repr(scenes).encode()).hexdigest()
    stack = cached_stack(
        ["scenes", DRAWING, digest],
        count,
        settings.image_size,
        lambda index: draw(scenes[index], settings.image_size),
    )
    return ImageSplit(
        name=split,
        images=stack.images,
        names=tuple(f"{split}_{index:05d}.png" for index in range(count)),
        references=tuple(
            captions(scene, random.Random(f"captions {settings.seed} {split} {index}"))
            for index, scene in enumerate(scenes)
        ),
    )


def scene_at(seed: int, split: SplitName, index: int) -> Scene:
    """Scene `index` of a split."""
    rng = random.Random(f"scene {seed} {split} {index}")
    while True:
        scene = draw_scene(rng)
        if zlib.crc32(repr(scene).encode()) % BUCKETS in BUCKETS_OF[split]:
            return scene
