"""Where labels go in a plot so that they cover neither each other nor the points."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""

DISTANCES = (1.0, 1.8, 2.8, 4.0, 5.5)
ANGLES = (45, 135, 90, 0, 315, 225, 270, 180)


def place(
    anchors: Sequence[Point],
    sizes: Sequence[Point],
    obstacles: Sequence[Point],
    frame: Box,
    radius: float,
) -> list[Point]:
    """The centre of each label, all in pixels.

    A label of `sizes` (width, height) goes beside its anchor, where it overlaps least with the
    labels before it, with what lies within `radius` of the obstacles, and with what is beyond the
    frame; among such places the nearest is taken. Crowded anchors choose first.
    """
    boxes = [_around(point, (2 * radius, 2 * radius)) for point in (*anchors, *obstacles)]
    taken: list[Box] = []
    centres: dict[int, Point] = {}
    for index in sorted(range(len(anchors)), key=lambda one: _crowd(anchors, one)):
        options = _options(anchors[index], sizes[index], radius)
        costs = [_cost(_around(one, sizes[index]), taken, boxes, frame) for one in options]
        centres[index] = options[costs.index(min(costs))]
        taken.append(_around(centres[index], sizes[index]))
    return [centres[index] for index in range(len(anchors))]


def _options(anchor: Point, size: Point, radius: float) -> list[Point]:
    """Places around an anchor, the nearest first."""
    options = []
    for distance in DISTANCES:
        for angle in ANGLES:
            x, y = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            reach = distance * radius * 1.3
            options.append(
                (
                    anchor[0] + x * (reach + size[0] / 2),
                    anchor[1] + y * (reach + size[1] / 2),
                )
            )
    return options


def _cost(box: Box, taken: Sequence[Box], points: Sequence[Box], frame: Box) -> float:
    outside = _area(box) - _overlap(box, frame)
    return (
        4 * sum(_overlap(box, one) for one in taken)
        + sum(_overlap(box, one) for one in points)
        + 8 * outside
    )


def _crowd(anchors: Sequence[Point], index: int) -> float:
    """The distance to the nearest other anchor."""
    others = (math.dist(anchors[index], one) for i, one in enumerate(anchors) if i != index)
    return min(others, default=math.inf)


def _around(centre: Point, size: Point) -> Box:
    (x, y), (width, height) = centre, size
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
