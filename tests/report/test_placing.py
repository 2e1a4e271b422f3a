from __future__ import annotations

import random

import pytest

from autocomp.report.placing import place

FRAME = (0.0, 0.0, 1000.0, 800.0)
SIZE = (30.0, 20.0)
RADIUS = 9.0


def box(centre):
    (x, y), (width, height) = centre, SIZE
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def overlap(one, other):
    return min(one[2], other[2]) > max(one[0], other[0]) and min(one[3], other[3]) > max(
        one[1], other[1]
    )


def placed(anchors, obstacles=()):
    return [box(one) for one in place(anchors, [SIZE] * len(anchors), obstacles, FRAME, RADIUS)]


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_a_scatter_overlap_neither_each_other_nor_points_nor_the_frame(seed):
    rng = random.Random(seed)
    anchors = [(rng.uniform(0, 1000), rng.uniform(0, 800)) for _ in range(20)]
    boxes = placed(anchors)
    for index, one in enumerate(boxes):
        assert min(one) >= 0
        assert one[2] <= 1000
        assert one[3] <= 800
        assert not any(overlap(one, other) for other in boxes[:index])
        assert not any(one[0] < x < one[2] and one[1] < y < one[3] for x, y in anchors)


def test_labels_of_a_dense_row_do_not_overlap():
    anchors = [(400.0 + 12 * index, 400.0 + 6 * index) for index in range(12)]
    boxes = placed(anchors)
    assert not any(
        overlap(one, other) for index, one in enumerate(boxes) for other in boxes[:index]
    )


def test_an_obstacle_is_avoided():
    free = placed([(500.0, 400.0)])[0]
    middle = ((free[0] + free[2]) / 2, (free[1] + free[3]) / 2)
    moved = placed([(500.0, 400.0)], obstacles=[middle])[0]
    assert not overlap(free, moved)


def test_equal_points_get_labels_apart():
    first, second = placed([(500.0, 400.0), (500.0, 400.0)])
    assert not overlap(first, second)


def test_nothing_to_place_is_fine():
    assert place([], [], [], FRAME, RADIUS) == []
