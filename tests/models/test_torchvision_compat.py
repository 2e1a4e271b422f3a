"""torchvision works beside any torch, and the replacement for its compiled nms is exact."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocomp.models.torchvision_compat import nms, prepare

FRESH_IMPORTS = """
import autocomp.models.torchvision_compat
import torch, torchvision, timm
import torchvision.transforms.v2, torchvision.datasets

boxes = torch.tensor([[0., 0., 10., 10.], [1., 1., 10., 10.], [20., 20., 30., 30.]])
scores = torch.tensor([0.5, 0.9, 0.1])
assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == [1, 2]
kept = torchvision.ops.batched_nms(boxes, scores, torch.tensor([0, 1, 0]), 0.5)
assert kept.tolist() == [1, 0, 2]
features = torch.arange(64.0).view(1, 1, 8, 8)
pooled = torchvision.ops.roi_align(features, [torch.tensor([[2., 2., 6., 6.]])], 1, aligned=True)
assert abs(pooled.item() - features[0, 0, 2:6, 2:6].mean().item()) < 1e-4, pooled
torchvision.transforms.v2.Resize(8, antialias=True)(torch.zeros(3, 16, 16))
torchvision.models.mobilenet_v2(weights=None)
timm.create_model("resnet18", pretrained=False)
"""


def reference_nms(boxes: list[list[float]], scores: list[float], threshold: float) -> list[int]:
    def iou(a: list[float], b: list[float]) -> float:
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
        return width * height / (areas - width * height)

    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[index], boxes[other]) <= threshold for other in kept):
            kept.append(index)
    return kept


def test_fresh_process_can_use_torchvision_and_timm() -> None:
    run = subprocess.run(
        [sys.executable, "-c", FRESH_IMPORTS], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_prepare_twice_is_harmless() -> None:
    prepare()
    prepare()


box = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 8)] * 2)


@settings(deadline=None, max_examples=60)
@given(corners=st.lists(box, max_size=15), seed=st.integers(0, 99), tenths=st.integers(0, 10))
def test_nms_equals_brute_force(
    corners: list[tuple[int, int, int, int]], seed: int, tenths: int
) -> None:
    boxes = [[x, y, x + width, y + height] for x, y, width, height in corners]
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(len(boxes), generator=generator)
    threshold = tenths / 10 + 0.013  # no ratio of small integers falls on it
    kept = nms(torch.tensor(boxes, dtype=torch.float64).view(-1, 4), scores, threshold)
    assert kept.dtype == torch.int64
    assert kept.tolist() == reference_nms(boxes, scores.tolist(), threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.5], ids=["touching", "half"])
def test_nms_keeps_every_empty_box(threshold: float) -> None:
    boxes = torch.tensor([[1.0, 1.0, 1.0, 1.0]]).repeat(3, 1)
    assert nms(boxes, torch.tensor([1.0, 3.0, 2.0]), threshold).tolist() == [1, 2, 0]
