"""A folder of small pictures in three classes, and tasks that classify them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from autocomp.tasks.classification import Classification, ClassificationSettings

SHAPES: dict[str, Callable[..., None]] = {
    "disc": ImageDraw.ImageDraw.ellipse,
    "line": ImageDraw.ImageDraw.line,
    "square": ImageDraw.ImageDraw.rectangle,
}


def write_shapes(root: Path, count: int = 24, splits: tuple[str, ...] = ("train", "test")) -> Path:
    """`count` bright shapes on dark ground for each class and split, 24 pixels a side."""
    rng = random.Random(0)
    for split in splits:
        for name, draw in SHAPES.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                image = Image.new("RGB", (24, 24), tuple(rng.randrange(80) for _ in range(3)))
                left, top = rng.randrange(8), rng.randrange(8)
                ink = tuple(rng.randrange(120, 256) for _ in range(3))
                draw(ImageDraw.Draw(image), (left, top, left + 14, top + 14), fill=ink)
                image.save(root / split / name / f"{index:03d}.png")
    return root


def shapes_section(root: Path, **changes: Any) -> dict[str, Any]:
    """The `task` section of a classifier of these pictures."""
    return {
        "kind": "classification",
        "data": {
            "kind": "image_folder",
            "root": str(root),
            "image_size": 24,
            "dev_fraction": 0.25,
        },
        "model": {"name": "cifar_resnet20"},
        "dense": {"steps": 1, "batch_size": 16},
        **changes,
    }


def shapes_space(root: Path) -> dict[str, Any]:
    """A space that searches it: smaller images, fewer channels, fewer bits."""
    dense = {"steps": 30, "lr": 5.0e-3, "batch_size": 16}
    steps: list[dict[str, Any]] = [
        {"kind": "resize", "image_size": {"choice": [16, 24]}},
        {"kind": "prune_channels", "layers": "layer*", "ratio": {"choice": [0.5, 0.25]}},
        {"kind": "retrain", "steps": 3, "batch_size": 16, "distill": 0.5, "hidden": 0.1},
        {"kind": "quantize", "layers": "**", "bits": {"choice": [8, 4]}},
    ]
    return {
        "task": shapes_section(root, dense=dense),
        "target": {"kind": "onnxruntime"},
        "objectives": {"top_1": "maximize", "size_mb": "minimize", "latency_ms": "minimize"},
        "policy": {"steps": steps},
        "search": {"sampler": "random", "seed": 0},
    }


def shapes_task(root: Path, **changes: Any) -> Classification:
    settings = ClassificationSettings.model_validate(shapes_section(root, **changes))
    return Classification(settings)
