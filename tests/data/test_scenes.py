from __future__ import annotations

import hashlib
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from autocomp.data.captions import SPLITS, load_split
from autocomp.data.images import read_image
from autocomp.data.scene_drawing import COLOURS, JITTER, draw
from autocomp.data.scene_layout import COLOURS as NAMED_COLOURS
from autocomp.data.scene_layout import LAYOUTS, PATTERNS, SHAPES, Scene, Thing
from autocomp.data.scenes import ScenesSettings, scene_at
from autocomp.data.tokenizer import Tokenizer

SCENES = [scene_at(0, "train", index) for index in range(600)]


def test_the_data_never_change() -> None:
    scenes = repr([scene_at(0, split, index) for split in SPLITS for index in range(20)])
    assert hashlib.sha256(scenes.encode()).hexdigest()[:16] == "1f8624902f1a5d0c"
    references = load_split(ScenesSettings(train=20, image_size=16), "train").references
    assert hashlib.sha256(repr(references).encode()).hexdigest()[:16] == "64ba1a88ce1d190b"


def test_drawing_is_deterministic() -> None:
    for scene in SCENES[:20]:
        assert np.array_equal(draw(scene, 48), draw(scene, 48))


def test_a_smaller_split_is_the_start_of_a_larger_one() -> None:
    few = load_split(ScenesSettings(dev=4, image_size=16), "dev")
    many = load_split(ScenesSettings(dev=9, image_size=16), "dev")
    assert many.references[:4] == few.references
    assert np.array_equal(many.images[:4], few.images)


def test_another_seed_gives_other_scenes() -> None:
    assert not {scene_at(1, "train", index) for index in range(600)} & set(SCENES)


def test_no_scene_is_in_two_splits() -> None:
    splits = [{scene_at(0, split, index) for index in range(300)} for split in SPLITS]
    for one, other in combinations(splits, 2):
        assert not one & other


def test_the_cache_is_used(cache: Path) -> None:
    settings = ScenesSettings(train=3, image_size=16)
    images = [load_split(settings, "train").images for _ in range(2)]
    assert all(isinstance(one, np.memmap) for one in images)
    assert len(list((cache / "images").glob("*/images.npy"))) == 1


def test_everything_there_is_to_draw_is_drawn() -> None:
    things = [thing for scene in SCENES for thing in scene.everything]
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.colour for thing in things} == set(NAMED_COLOURS) == set(COLOURS)
    assert {scene.layout for scene in SCENES} == set(LAYOUTS)
    assert {scene.pattern for scene in SCENES} == set(PATTERNS)
    assert {len(scene.everything) for scene in SCENES} == {1, 2, 3, 4}


def test_captions_are_rich() -> None:
    references = load_split(ScenesSettings(train=600, image_size=16), "train").references
    lines = [line for group in references for line in group]
    assert all(len(set(group)) == 5 for group in references)
    assert 80 <= len(Tokenizer.train(lines)) <= 150
    assert len(set(lines)) > 2000
    assert Counter(lines).most_common(1)[0][1] < 10


def box(thing: Thing) -> tuple[float, float, float, float]:
    x, y, radius = thing.x, thing.y, thing.radius
    return x - radius, y - radius, x + radius, y + radius


def overlap(one: Thing, other: Thing) -> bool:
    left, top, right, bottom = box(one)
    other_left, other_top, other_right, other_bottom = box(other)
    across = left < other_right and other_left < right
    return across and top < other_bottom and other_top < bottom


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_lie_within_the_frame_and_apart(layout: str) -> None:
    for scene in (scene for scene in SCENES if scene.layout == layout):
        for thing in scene.everything:
            assert min(box(thing)) > 0
            assert max(box(thing)) < 1
        if layout != "inside":
            assert not any(overlap(*two) for two in combinations(scene.everything, 2))


def test_things_stand_in_order_along_the_axis() -> None:
    for scene in SCENES:
        if scene.layout != "inside":
            centres = [one.x if scene.axis == "row" else one.y for one in scene.things]
            assert all(first < second for first, second in pairwise(centres))


def _centre(scene: Scene, pixels: np.ndarray, thing: Thing) -> np.ndarray:
    side = len(pixels)
    row, column = int(thing.y * side), int(thing.x * side)
    return np.asarray(pixels[row - 1 : row + 2, column - 1 : column + 2].mean(axis=(0, 1)))


def test_shapes_have_their_colour_where_they_stand() -> None:
    for scene in SCENES[:200]:
        pixels = draw(scene, 128).astype(float)
        for thing in scene.everything:
            hollow = thing.shape in {"ring", "crescent"}
            covered = scene.layout == "inside" and thing is scene.things[0]
            if not hollow and not covered:
                off = np.abs(_centre(scene, pixels, thing) - COLOURS[thing.colour]).max()
                assert off <= JITTER + 5, (scene, thing)


def test_edges_are_smooth() -> None:
    thing = Thing("circle", "black", "large", 0.5, 0.5, 0.25)
    scene = Scene("alone", "row", False, (thing,), None, "white", "plain")
    levels = np.unique(draw(scene, 64)[:, :, 0] // 32)
    assert len(levels) > 4


def test_a_resized_split_is_the_same_pictures_with_fewer_pixels() -> None:
    split = load_split(ScenesSettings(train=3, dev=2, test=1), "train")
    small = split.resized(20)
    assert small.images.shape == (3, 20, 20, 3)
    for index in range(3):
        assert np.array_equal(small.images[index], read_image(split.jpeg(index), 20))
