"""The captions of a scene: a small grammar with synonyms, and nothing that is not to be seen."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from autocomp.data.scene_layout import Scene, Thing

CAPTIONS = 5  # references an image

# the first of several words is said most
SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle", "wedge"),
    "star": ("star",),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
    "heart": ("heart",),
    "diamond": ("diamond", "rhombus"),
    "crescent": ("crescent", "moon"),
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "teal": ("teal", "turquoise"),
    "blue": ("blue", "cobalt"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose"),
    "brown": ("brown", "chocolate"),
    "black": ("black",),
    "white": ("white",),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": (),
    "large": ("big", "large", "huge"),
}
BACKGROUND_WORDS: dict[str, tuple[str, ...]] = {
    "gray": ("gray", "grey"),
    "beige": ("beige", "cream"),
    "mint": ("mint",),
    "lavender": ("lavender",),
    "white": ("white",),
    "black": ("black", "dark"),
}
PATTERN_WORDS: dict[str, tuple[str, ...]] = {
    "plain": ("plain",),
    "striped": ("striped",),
    "checkered": ("checkered",),
    "shaded": ("shaded",),
    "dotted": ("dotted", "spotted"),
}
NUMBERS = {2: "two", 3: "three", 4: "four"}

BEFORE: dict[str, tuple[str, ...]] = {
    "row": ("to the left of", "left of"),
    "column": ("above", "over"),
}
AFTER: dict[str, tuple[str, ...]] = {
    "row": ("to the right of", "right of"),
    "column": ("below", "under", "beneath"),
}
NEXT_TO = ("next to", "beside", "close to")
INSIDE = ("inside", "within", "surrounded by")
AROUND = ("around", "containing", "surrounding")
LINED_UP = {"row": ("in a row", "in a line"), "column": ("in a column", "in a stack")}
PLACES: dict[tuple[int, int], tuple[str, ...]] = {
    (-1, -1): ("in the top left corner", "in the upper left corner"),
    (0, -1): ("at the top", "near the top edge"),
    (1, -1): ("in the top right corner", "in the upper right corner"),
    (-1, 0): ("on the left side", "near the left edge"),
    (0, 0): ("in the center", "in the middle"),
    (1, 0): ("on the right side", "near the right edge"),
    (-1, 1): ("in the bottom left corner", "in the lower left corner"),
    (0, 1): ("at the bottom", "near the bottom edge"),
    (1, 1): ("in the bottom right corner", "in the lower right corner"),
}


def captions(scene: Scene, rng: random.Random) -> tuple[str, ...]:
    """`CAPTIONS` different true captions; the same for the same state of `rng`."""
    lines: dict[str, None] = {}
    while len(lines) < CAPTIONS:
        terse = rng.random() < 0.15
        line = SENTENCES[scene.layout](scene, rng, terse)
        if scene.corner is not None and rng.random() < 0.5:
            line += f" with {_noun(scene.corner, rng, terse)} {_place(scene.corner, rng)}"
        if rng.random() < 0.3:
            line += f" {_background(scene, rng, terse)}"
        lines[line] = None
    return tuple(lines)


def _alone(scene: Scene, rng: random.Random, terse: bool) -> str:
    (thing,) = scene.things
    subject = _subject(_noun(thing, rng, terse), rng, terse)
    return f"{subject} {_place(thing, rng)}"


def _pair(scene: Scene, rng: random.Random, terse: bool) -> str:
    one, other = scene.things
    words = BEFORE[scene.axis]
    if rng.random() < 0.3:
        one, other, words = other, one, AFTER[scene.axis]
    if scene.near and rng.random() < 0.5:
        words = NEXT_TO
    first, second = _noun(one, rng, terse), _noun(other, rng, terse)
    if rng.random() < 0.12:
        return f"{first} and {second}"
    return f"{_subject(first, rng, terse)} {_pick(words, rng)} {second}"


def _inside(scene: Scene, rng: random.Random, terse: bool) -> str:
    outer, inner = (_noun(thing, rng, terse) for thing in scene.things)
    if rng.random() < 0.25:
        return f"{outer} {_pick(AROUND, rng)} {inner}"
    return f"{_subject(inner, rng, terse)} {_pick(INSIDE, rng)} {outer}"


def _between(scene: Scene, rng: random.Random, terse: bool) -> str:
    first, middle, last = (_noun(thing, rng, terse) for thing in scene.things)
    if rng.random() < 0.25:
        return f"{first}, {middle} and {last} {_pick(LINED_UP[scene.axis], rng)}"
    if rng.random() < 0.25:
        first, last = last, first
    return f"{_subject(middle, rng, terse)} between {first} and {last}"


def _group(scene: Scene, rng: random.Random, terse: bool) -> str:
    nouns = _adjectives(scene.things[0], rng) + _plural(_shape(scene.things[0], rng))
    number = NUMBERS[len(scene.things)]
    if not terse and rng.random() < 0.2:
        return f"a {scene.axis} of {number} {nouns}"
    start = "there are " if not terse and rng.random() < 0.1 else ""
    return f"{start}{number} {nouns} {_pick(LINED_UP[scene.axis], rng)}"


Sentence = Callable[[Scene, random.Random, bool], str]
SENTENCES: dict[str, Sentence] = {
    "alone": _alone,
    "pair": _pair,
    "inside": _inside,
    "between": _between,
    "group": _group,
}


def _subject(noun: str, rng: random.Random, terse: bool) -> str:
    """The noun as the start of a sentence, with a verb or without."""
    chance = rng.random()
    if terse or chance < 0.55:
        return noun
    if chance < 0.7:
        return f"there is {noun}"
    return f"{noun} {'is' if chance < 0.9 else 'sits'}"


def _noun(thing: Thing, rng: random.Random, terse: bool) -> str:
    phrase = _adjectives(thing, rng) + _shape(thing, rng)
    if terse:
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _adjectives(thing: Thing, rng: random.Random) -> str:
    words = SIZE_WORDS[thing.size]
    size = f"{_pick(words, rng)} " if words and rng.random() < 0.65 else ""
    return f"{size}{_pick(COLOUR_WORDS[thing.colour], rng)} "


def _shape(thing: Thing, rng: random.Random) -> str:
    return _pick(SHAPE_WORDS[thing.shape], rng)


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


def _place(thing: Thing, rng: random.Random) -> str:
    return _pick(PLACES[_third(thing.x), _third(thing.y)], rng)


def _third(position: float) -> int:
    return -1 if position < 1 / 3 else 1 if position > 2 / 3 else 0


def _background(scene: Scene, rng: random.Random, terse: bool) -> str:
    words = [_pick(BACKGROUND_WORDS[scene.background], rng)]
    if rng.random() < 0.6:
        words.insert(0, _pick(PATTERN_WORDS[scene.pattern], rng))
    ground = "backdrop" if rng.random() < 0.2 else "background"
    return f"on {'' if terse else 'a '}{' '.join(words)} {ground}"


def _pick(words: Sequence[str], rng: random.Random) -> str:
    """The first word three times in four, else one of the others."""
    if len(words) == 1 or rng.random() < 0.75:
        return words[0]
    return rng.choice(words[1:])
