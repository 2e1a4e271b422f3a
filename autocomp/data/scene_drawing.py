"""Draws a scene: at twice the size, then halved, so that edges are smooth."""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image, ImageDraw

from autocomp.data.scene_layout import Scene, Thing

DRAWING = 1  # part of the cache's key: raise it when a scene is drawn differently

RGB = tuple[int, int, int]
Point = tuple[float, float]

COLOURS: dict[str, RGB] = {
    "red": (214, 39, 40),
    "orange": (245, 130, 32),
    "yellow": (250, 215, 40),
    "green": (40, 150, 60),
    "teal": (30, 175, 175),
    "blue": (40, 80, 210),
    "purple": (130, 50, 170),
    "pink": (245, 130, 180),
    "brown": (125, 75, 40),
    "black": (22, 22, 24),
    "white": (250, 250, 250),
}
BACKGROUNDS: dict[str, RGB] = {
    "gray": (158, 160, 163),
    "beige": (232, 217, 184),
    "mint": (186, 226, 200),
    "lavender": (208, 196, 236),
    "white": (240, 240, 240),
    "black": (40, 40, 44),
}
SCALE = 2
JITTER = 12  # how far a shape's colour may be off, of 255
NOISE = 9  # the number of levels noise may add to a pixel, centred on none
CONTRAST = 26  # between the two tones of a pattern
STRIPES = 8  # dark bands, tiles or dots along the image's side
DOT_RADIUS = 0.28  # of the distance between dots
RING_WIDTH = 0.32  # of the radius


def draw(scene: Scene, size: int) -> np.ndarray:
    """The scene as (size, size, 3) uint8; the same for the same scene and size."""
    rng = random.Random(repr(scene))
    image = _background(scene, size * SCALE)
    canvas = ImageDraw.Draw(image)
    for thing in scene.everything:
        _draw_thing(canvas, thing, size * SCALE, rng)
    pixels = np.asarray(image.reduce(SCALE)).astype(np.int16)
    raw = np.frombuffer(rng.randbytes(pixels.size), np.uint8).astype(np.int16)
    noise = (raw * NOISE >> 8) - NOISE // 2
    return (pixels + noise.reshape(pixels.shape)).clip(0, 255).astype(np.uint8)


def _background(scene: Scene, side: int) -> Image.Image:
    light = BACKGROUNDS[scene.background]
    sign = 1 if scene.background == "black" else -1
    dark = tuple(channel + sign * CONTRAST for channel in light)
    if scene.pattern == "plain":
        return Image.new("RGB", (side, side), light)
    weight = _pattern(scene.pattern, side)[:, :, None]
    pixels = weight * np.array(dark) + (1 - weight) * np.array(light)
    return Image.fromarray(pixels.astype(np.uint8))


def _pattern(name: str, side: int) -> np.ndarray:
    """How much of the second tone each pixel has, (side, side) in [0, 1]."""
    if name == "shaded":
        return np.repeat(np.linspace(0, 1, side)[:, None], side, axis=1)
    if name == "dotted":
        phase = (np.arange(side) * STRIPES / side) % 1 - 0.5
        return (np.hypot(phase[:, None], phase[None, :]) < DOT_RADIUS).astype(float)
    bands = (np.arange(side) * 2 * STRIPES // side) % 2
    if name == "striped":
        return np.repeat(bands[:, None], side, axis=1)
    assert name == "checkered", name
    return np.not_equal(bands[:, None], bands[None, :]).astype(float)


def _draw_thing(canvas: ImageDraw.ImageDraw, thing: Thing, side: int, rng: random.Random) -> None:
    red, green, blue = (
        min(max(channel + rng.randint(-JITTER, JITTER), 0), 255)
        for channel in COLOURS[thing.colour]
    )
    colour = (red, green, blue)
    x, y, radius = thing.x * side, thing.y * side, thing.radius * side
    box = (x - radius, y - radius, x + radius, y + radius)
    if thing.shape == "circle":
        canvas.ellipse(box, fill=colour)
    elif thing.shape == "ring":
        canvas.ellipse(box, outline=colour, width=round(RING_WIDTH * radius))
    else:
        outline = OUTLINES[thing.shape]
        canvas.polygon([(x + radius * px, y + radius * py) for px, py in outline], fill=colour)


def _star() -> list[Point]:
    turns = [(1 if k % 2 == 0 else 0.42, math.pi * k / 5) for k in range(10)]
    return [(r * math.sin(angle), -r * math.cos(angle)) for r, angle in turns]


def _heart() -> list[Point]:
    points = []
    for step in range(36):
        t = 2 * math.pi * step / 36
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((math.sin(t) ** 3, -(y + 2.5) / 15))
    return points


def _crescent() -> list[Point]:
    """A disc without a smaller one that stands half a radius to its right."""
    width = math.sin(math.radians(60))  # the two circles cross at 60 degrees of the larger
    outer = [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in range(60, 301, 10)]
    hollow = [math.radians(a) for a in range(270, 89, -10)]
    inner = [(0.5 + width * math.cos(a), width * math.sin(a)) for a in hollow]
    return [(x + 0.25, y) for x, y in outer + inner]


OUTLINES: dict[str, list[Point]] = {
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0, -0.95), (1, 0.85), (-1, 0.85)],
    "star": _star(),
    "cross": [
        (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3),
        (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3),
    ],
    "heart": _heart(),
    "diamond": [(0, -1), (0.8, 0), (0, 1), (-0.8, 0)],
    "crescent": _crescent(),
}  # fmt: skip
