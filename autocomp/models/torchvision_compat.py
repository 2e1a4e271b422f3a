"""Makes torchvision importable where its compiled library cannot load.

torchvision's Linux wheel is linked against CUDA; beside a CPU-only torch the library does not load
and `import torchvision` (and so timm) fails with `operator torchvision::nms does not exist`.
Importing this module first is enough; `prepare` does the work once and does nothing where the
library loads. `torchvision.io` stays unavailable without the library: read images with Pillow.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# importing torchvision registers a shape function for each of these, which needs their schemas
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

# a torch.library.Library takes its operators with it when it is collected
_libraries: list[torch.library.Library] = []


def prepare() -> None:
    """Import torchvision, with a pure-torch `nms` where the compiled library cannot load."""
    if "torchvision" in sys.modules or _compiled_library_loads():
        return
    if not _libraries:
        library: Any = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        library.impl("nms", nms, "CPU")
        _libraries.append(library)
    importlib.import_module("torchvision")
    # these two would refuse to run, or compile C++ on first use, without the library
    boxes: Any = sys.modules["torchvision.ops.boxes"]
    boxes._assert_has_ops = lambda: None
    roi_align: Any = sys.modules["torchvision.ops.roi_align"]
    roi_align._roi_align = roi_align._roi_align.__wrapped__


def _compiled_library_loads() -> bool:
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        return True  # not installed: the import that follows says so
    for folder in map(Path, package.submodule_search_locations):
        for path in (*folder.glob("_C*.so"), *folder.glob("_C*.pyd")):
            try:
                torch.ops.load_library(str(path))
            except (ImportError, OSError):
                continue
            return True
    return False


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices (K,) of the boxes greedy non-maximum suppression keeps, best score first.

    `boxes` is (N, 4) as x1, y1, x2, y2 and `scores` (N,); a box goes when it overlaps a better
    one that stays with an intersection over union above `iou_threshold`.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])  # (N,)
    order = scores.argsort(descending=True, stable=True)
    kept = []
    while order.numel():
        best, order = order[0], order[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[order, :2])
        high = torch.minimum(boxes[best, 2:], boxes[order, 2:])
        overlap = (high - low).clamp_min(0).prod(dim=1)  # (candidates,)
        union = areas[best] + areas[order] - overlap
        # two empty boxes give 0/0, which suppresses nothing
        order = order[~(overlap / union > iou_threshold)]
    return torch.stack(kept) if kept else order


prepare()
