"""Tiny copies of Flickr8k, in the layouts it comes in, for the tests."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = {"train": ["a.jpg", "b.jpg", "c.jpg"], "dev": ["d.jpg", "e.jpg"]}
ALL = [name for names in NAMES.values() for name in names]


def jpeg_bytes(seed: int, width: int = 24, height: int = 20) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def captions_of(name: str) -> list[str]:
    return [f'A "big" dog , number {number} , of {name} .' for number in range(5)]


def _write_images_and_lists(root: Path, folder: str, texts: str) -> None:
    (root / folder).mkdir(parents=True)
    (root / texts).mkdir(exist_ok=True)
    for split, names in NAMES.items():
        (root / texts / f"Flickr_8k.{split}Images.txt").write_text("".join(f"{n}\n" for n in names))
        for name in names:
            (root / folder / name).write_bytes(jpeg_bytes(ord(name[0])))


def write_kaggle(root: Path) -> None:
    _write_images_and_lists(root, "Images", "")
    with (root / "captions.txt").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption"])
        for name in ALL:
            writer.writerows([name, caption] for caption in captions_of(name))


def write_original(root: Path, folder: str = "Flicker8k_Dataset", texts: str = "") -> None:
    _write_images_and_lists(root, folder, texts)
    lines = [
        f"{name}#{number}\t{caption}\n"
        for name in ALL
        for number, caption in enumerate(captions_of(name))
    ]
    (root / texts / "Flickr8k.token.txt").write_text("".join(lines), encoding="utf-8")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "kaggle": write_kaggle,
    "original": write_original,
    "original as unzipped": lambda root: write_original(root, "Flickr8k_Dataset", "Flickr8k_text"),
}
