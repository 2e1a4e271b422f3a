"""What a generated scene holds: coloured shapes in spatial relations on a background.

Coordinates are fractions of the image's side, x to the right and y down. Every relation a layout
stands for holds with a margin, so whatever the captions say of it can be seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "cross",
    "ring",
    "heart",
    "diamond",
    "crescent",
)
HOLLOW = ("circle", "square", "ring", "diamond")  # those that a smaller shape fits inside
COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "teal",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
)
RADII = {"small": (0.085, 0.105), "medium": (0.13, 0.16), "large": (0.2, 0.25)}
CONTAINER_RADII = (0.28, 0.34)
BACKGROUNDS = {  # and the colours that would not stand out against each
    "gray": (),
    "beige": ("white", "yellow"),
    "mint": ("white", "teal"),
    "lavender": ("white", "pink"),
    "white": ("white", "yellow"),
    "black": ("black", "brown"),
}
PATTERNS = ("plain", "striped", "checkered", "shaded", "dotted")

MARGIN = 0.02  # between shapes, and between a shape and the frame
NEAR = (0.02, 0.06)  # the gap between shapes that are next to each other
APART = (0.12, 0.4)
CORNERS = tuple((x, y) for y in (0.0, 1.0) for x in (0.0, 1.0))
CORNER_CHANCE = 0.35

Axis = Literal["row", "column"]
AXES: tuple[Axis, ...] = get_args(Axis)
Place = tuple[float, float]


@dataclass(frozen=True)
class Thing:
    """A shape whose bounding square has its centre at (x, y) and half its side equal to radius."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """Shapes on a background.

    `things` stand along `axis` from left to right or from top to bottom; in the layout `inside`,
    the container comes first. `corner` is one more small shape in a corner of the image.
    """

    layout: str
    axis: Axis
    near: bool
    things: tuple[Thing, ...]
    corner: Thing | None
    background: str
    pattern: str

    @property
    def everything(self) -> tuple[Thing, ...]:
        """All shapes in the order they are drawn."""
        return self.things if self.corner is None else (*self.things, self.corner)


@dataclass(frozen=True)
class Look:
    """A shape before it has a place."""

    shape: str
    colour: str
    size: str
    radius: float

    def at(self, x: float, y: float) -> Thing:
        return Thing(self.shape, self.colour, self.size, round(x, 3), round(y, 3), self.radius)


def draw_scene(rng: random.Random) -> Scene:
    """One scene; the same for the same state of `rng`."""
    background, pattern = rng.choice(list(BACKGROUNDS)), rng.choice(PATTERNS)
    colours = [colour for colour in COLOURS if colour not in BACKGROUNDS[background]]
    layout = rng.choices(list(LAYOUTS), [weight for _, weight in LAYOUTS.values()])[0]
    axis = rng.choice(AXES)
    near = rng.random() < 0.4
    things = None
    while things is None:  # the sizes drawn may not fit beside each other
        things = LAYOUTS[layout][0](rng, colours, axis, near)
    corner = None
    if layout in {"pair", "between"} and rng.random() < CORNER_CHANCE:
        corner = _corner(rng, colours, things)
    return Scene(layout, axis, near, things, corner, background, pattern)


Arrange = Callable[[random.Random, list[str], Axis, bool], tuple[Thing, ...] | None]


def _alone(rng: random.Random, colours: list[str], axis: Axis, near: bool) -> tuple[Thing, ...]:
    x, y = rng.choice([(x, y) for x in (0.0, 0.5, 1.0) for y in (0.0, 0.5, 1.0)])
    sizes = tuple(RADII) if (x, y) == (0.5, 0.5) else ("small", "medium")
    return (_place(rng, _look(rng, colours, sizes), x, y),)


def _pair(
    rng: random.Random, colours: list[str], axis: Axis, near: bool
) -> tuple[Thing, ...] | None:
    return _line(rng, _distinct(rng, colours, tuple(RADII), 2), axis, near)


def _between(
    rng: random.Random, colours: list[str], axis: Axis, near: bool
) -> tuple[Thing, ...] | None:
    return _line(rng, _distinct(rng, colours, tuple(RADII), 3), axis, near)


def _group(
    rng: random.Random, colours: list[str], axis: Axis, near: bool
) -> tuple[Thing, ...] | None:
    look = _look(rng, colours, ("small", "medium"))
    return _line(rng, [look] * rng.randint(2, 4), axis, near)


def _inside(rng: random.Random, colours: list[str], axis: Axis, near: bool) -> tuple[Thing, ...]:
    radius = round(rng.uniform(*CONTAINER_RADII), 3)
    outer, inner = rng.sample(colours, 2)
    room = radius + MARGIN
    container = Look(rng.choice(HOLLOW), outer, "large", radius).at(
        rng.uniform(room, 1 - room), rng.uniform(room, 1 - room)
    )
    look = _look(rng, [inner], ("small",))
    x, y = (centre + rng.uniform(-0.01, 0.01) for centre in (container.x, container.y))
    return container, look.at(x, y)


LAYOUTS: dict[str, tuple[Arrange, int]] = {  # and how often each is drawn
    "alone": (_alone, 15),
    "pair": (_pair, 42),
    "inside": (_inside, 15),
    "between": (_between, 14),
    "group": (_group, 14),
}


def _look(rng: random.Random, colours: list[str], sizes: tuple[str, ...]) -> Look:
    size = rng.choice(sizes)
    radius = round(rng.uniform(*RADII[size]), 3)
    return Look(rng.choice(SHAPES), rng.choice(colours), size, radius)


def _distinct(
    rng: random.Random, colours: list[str], sizes: tuple[str, ...], count: int
) -> list[Look]:
    """Looks of which no two share both shape and colour."""
    while True:
        looks = [_look(rng, colours, sizes) for _ in range(count)]
        if len({(look.shape, look.colour) for look in looks}) == count:
            return looks


def _line(
    rng: random.Random, looks: list[Look], axis: Axis, near: bool
) -> tuple[Thing, ...] | None:
    """The looks one after the other along the axis, or None if they need more than the frame."""
    gaps = [rng.uniform(*(NEAR if near else APART)) for _ in looks[1:]]
    length = sum(2 * look.radius for look in looks) + sum(gaps)
    if length > 1 - 2 * MARGIN:
        return None
    room = max(look.radius for look in looks) + MARGIN
    along = rng.uniform(MARGIN, 1 - MARGIN - length)
    across = rng.uniform(room, 1 - room)
    things = []
    for look, gap in zip(looks, [*gaps, 0.0], strict=True):
        low, high = look.radius + MARGIN, 1 - look.radius - MARGIN
        aside = min(max(across + rng.uniform(-0.04, 0.04), low), high)
        centre = along + look.radius
        things.append(look.at(centre, aside) if axis == "row" else look.at(aside, centre))
        along += 2 * look.radius + gap
    return tuple(things)


def _place(rng: random.Random, look: Look, x: float, y: float) -> Thing:
    """The look at the start (0), middle (0.5) or end (1) of each direction, a little off."""

    def position(part: float) -> float:
        if part == 0.5:
            return 0.5 + rng.uniform(-0.04, 0.04)
        from_edge = look.radius + MARGIN + rng.uniform(0, 0.04)
        return from_edge if part == 0 else 1 - from_edge

    return look.at(position(x), position(y))


def _corner(rng: random.Random, colours: list[str], things: tuple[Thing, ...]) -> Thing | None:
    """A small shape unlike the others in a corner that is free, if there is one."""
    look = _look(rng, colours, ("small",))
    if any((thing.shape, thing.colour) == (look.shape, look.colour) for thing in things):
        return None
    for x, y in rng.sample(CORNERS, len(CORNERS)):
        corner = _place(rng, look, x, y)
        if all(_apart(corner, thing) for thing in things):
            return corner
    return None


def _apart(one: Thing, other: Thing) -> bool:
    distance = max(abs(one.x - other.x), abs(one.y - other.y))
    return distance >= one.radius + other.radius + MARGIN
