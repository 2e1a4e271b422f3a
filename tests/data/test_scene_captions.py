"""Every caption is read back, word for word, and held against the coordinates of its scene."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import pairwise

import pytest

from autocomp.data.scene_captions import (
    BACKGROUND_WORDS,
    COLOUR_WORDS,
    PATTERN_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
    captions,
)
from autocomp.data.scene_layout import LAYOUTS, Scene, Thing
from autocomp.data.scenes import scene_at

SCENES = [scene_at(3, "train", index) for index in range(500)]
SEPARATE = 0.01


def meanings(words: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {word: meaning for meaning, several in words.items() for word in several}


SHAPE, COLOUR, SIZE = meanings(SHAPE_WORDS), meanings(COLOUR_WORDS), meanings(SIZE_WORDS)
BACKGROUND, PATTERN = meanings(BACKGROUND_WORDS), meanings(PATTERN_WORDS)
PLURAL = {f"{word}es" if word[-1] in "sx" else f"{word}s": word for word in SHAPE}


def any_of(words: dict[str, str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


NOUN = rf"(?:an? )?(?:(?:{any_of(SIZE)}) )?(?:{any_of(COLOUR)}) (?:{any_of(SHAPE)})"
GROUND = re.compile(
    rf" on (?:a )?(?:({any_of(PATTERN)}) )?({any_of(BACKGROUND)}) back(?:ground|drop)$"
)
PLACE = r"(?:in|at|on|near) the [a-z ]+"
GROUP = re.compile(
    rf"(?:there are |a (row|column) of )?(two|three|four) "
    rf"(?:({any_of(SIZE)}) )?({any_of(COLOUR)}) ({any_of(PLURAL)})"
    rf"(?: in a (row|line|column|stack))?"
)


def left(one: Thing, other: Thing) -> bool:
    return one.x + one.radius + SEPARATE <= other.x - other.radius and abs(one.y - other.y) < 0.35


def above(one: Thing, other: Thing) -> bool:
    return one.y + one.radius + SEPARATE <= other.y - other.radius and abs(one.x - other.x) < 0.35


def near(one: Thing, other: Thing) -> bool:
    apart = max(abs(one.x - other.x), abs(one.y - other.y)) - one.radius - other.radius
    return 0 < apart < 0.08


def inside(one: Thing, other: Thing) -> bool:
    """The bounding square of one lies in the largest square that fits in the other, or its hole."""
    inner = {"circle": 0.7, "square": 0.9, "ring": 0.48, "diamond": 0.44}[other.shape]
    reach = max(abs(one.x - other.x), abs(one.y - other.y)) + one.radius
    return reach <= inner * other.radius


def swapped(relation: Callable[[Thing, Thing], bool]) -> Callable[[Thing, Thing], bool]:
    return lambda one, other: relation(other, one)


def both(one: Thing, other: Thing) -> bool:
    return True


RELATIONS: dict[str, Callable[[Thing, Thing], bool]] = {
    **dict.fromkeys(("to the left of", "left of"), left),
    **dict.fromkeys(("to the right of", "right of"), swapped(left)),
    **dict.fromkeys(("above", "over"), above),
    **dict.fromkeys(("below", "under", "beneath"), swapped(above)),
    **dict.fromkeys(("next to", "beside", "close to"), near),
    **dict.fromkeys(("inside", "within", "surrounded by"), inside),
    **dict.fromkeys(("around", "containing", "surrounding"), swapped(inside)),
    "and": both,
}
LINED = {"row": left, "line": left, "column": above, "stack": above}
SIDES: dict[str, Callable[[Thing], bool]] = {
    "left": lambda thing: thing.x < 0.3,
    "right": lambda thing: thing.x > 0.7,
    "top": lambda thing: thing.y < 0.3,
    "upper": lambda thing: thing.y < 0.3,
    "bottom": lambda thing: thing.y > 0.7,
    "lower": lambda thing: thing.y > 0.7,
    "center": lambda thing: max(abs(thing.x - 0.5), abs(thing.y - 0.5)) < 0.06,
    "middle": lambda thing: max(abs(thing.x - 0.5), abs(thing.y - 0.5)) < 0.06,
}
FILLER = {"in", "at", "on", "near", "the", "corner", "edge", "side"}


def the_thing(noun: str, scene: Scene) -> Thing:
    """The only thing of the scene that the noun can mean."""
    words = noun.split()
    shape, colour = SHAPE[words[-1]], COLOUR[words[-2]]
    found = [one for one in scene.everything if (one.shape, one.colour) == (shape, colour)]
    assert len(found) == 1, (noun, scene)
    sizes = [SIZE[word] for word in words if word in SIZE]
    assert not sizes or sizes == [found[0].size]
    if words[0] in {"a", "an"}:
        assert (words[0] == "an") == (words[1][0] in "aeiou")
    return found[0]


def check_place(thing: Thing, place: str) -> None:
    words = place.split()
    sides = [word for word in words if word in SIDES]
    assert sides
    assert set(words) - set(sides) <= FILLER
    assert all(SIDES[side](thing) for side in sides), (thing, place)
    assert ("corner" in words) == (len(sides) == 2)


def check(caption: str, scene: Scene) -> str:
    """Assert that the caption is true; the kind of statement it makes."""
    ground = GROUND.search(caption)
    if ground:
        pattern, colour = ground.groups()
        assert BACKGROUND[colour] == scene.background
        assert pattern is None or PATTERN[pattern] == scene.pattern
        caption = caption[: ground.start()]
    extra = re.search(rf" with ({NOUN}) ({PLACE})$", caption)
    if extra:
        check_place(the_thing(extra[1], scene), extra[2])
        caption = caption[: extra.start()]
    caption = caption.removeprefix("there is ")
    for name, (form, statement) in STATEMENTS.items():
        match = form.fullmatch(caption)
        if match:
            statement(match, scene)
            return name
    raise AssertionError(f"cannot be read: {caption}")


def _placed(match: re.Match[str], scene: Scene) -> None:
    check_place(the_thing(match[1], scene), match[2])
    assert len(scene.everything) == 1


def _related(match: re.Match[str], scene: Scene) -> None:
    one, other = the_thing(match[1], scene), the_thing(match[3], scene)
    assert RELATIONS[match[2]](one, other), (match[0], scene)


def _between(match: re.Match[str], scene: Scene) -> None:
    middle, one, other = (the_thing(match[group], scene) for group in (1, 2, 3))
    assert any(
        relation(one, middle) and relation(middle, other)
        for relation in (left, above, swapped(left), swapped(above))
    )


def _lined(match: re.Match[str], scene: Scene) -> None:
    one, middle, other = (the_thing(match[group], scene) for group in (1, 2, 3))
    relation = LINED[match[4]]
    assert relation(one, middle)
    assert relation(middle, other)


def _grouped(match: re.Match[str], scene: Scene) -> None:
    before, number, size, colour, shape, after = match.groups()
    things = scene.everything
    assert len(things) == ["two", "three", "four"].index(number) + 2
    assert {thing.colour for thing in things} == {COLOUR[colour]}
    assert {thing.shape for thing in things} == {SHAPE[PLURAL[shape]]}
    assert size is None or {thing.size for thing in things} == {SIZE[size]}
    relation = LINED[before or after]
    assert all(relation(one, other) for one, other in pairwise(things))


VERB = "(?: is| sits)?"
STATEMENTS: dict[str, tuple[re.Pattern[str], Callable[[re.Match[str], Scene], None]]] = {
    "alone": (re.compile(rf"({NOUN}){VERB} ({PLACE})"), _placed),
    "pair": (re.compile(rf"({NOUN}){VERB} ({'|'.join(RELATIONS)}) ({NOUN})"), _related),
    "between": (re.compile(rf"({NOUN}){VERB} between ({NOUN}) and ({NOUN})"), _between),
    "lined": (re.compile(rf"({NOUN}), ({NOUN}) and ({NOUN}) in a ([a-z]+)"), _lined),
    "group": (GROUP, _grouped),
}
READ_AS = {
    "alone": {"alone"},
    "pair": {"pair"},
    "inside": {"pair"},
    "between": {"between", "lined"},
    "group": {"group"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_caption_is_true_of_its_scene(layout: str) -> None:
    scenes = [scene for scene in SCENES if scene.layout == layout]
    assert len(scenes) > 20
    for number, scene in enumerate(scenes):
        read = {check(caption, scene) for caption in captions(scene, random.Random(number))}
        assert read <= READ_AS[layout]


def test_the_check_sees_what_is_false() -> None:
    scene = next(one for one in SCENES if one.layout == "pair" and one.axis == "row")
    first, second = (f"{thing.colour} {thing.shape}" for thing in scene.things)
    assert check(f"{first} left of {second}", scene) == "pair"
    for caption in (f"{first} right of {second}", f"{first} above {second}"):
        with pytest.raises(AssertionError):
            check(caption, scene)


def test_captions_follow_the_random_state() -> None:
    assert captions(SCENES[0], random.Random(1)) == captions(SCENES[0], random.Random(1))
    assert captions(SCENES[0], random.Random(1)) != captions(SCENES[0], random.Random(2))
