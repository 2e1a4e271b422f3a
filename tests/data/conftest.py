"""A cache of its own for every test, tiny copies of Flickr8k, and the real one if it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from flickr8k_files import LAYOUTS, write_kaggle


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("AUTOCOMP_CACHE", str(folder))
    return folder


def real(name: str) -> Path:
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    root = Path(os.environ.get("AUTOCOMP_DATA", beside)) / name
    if not root.is_dir():
        pytest.skip(f"no {root}: set AUTOCOMP_DATA to the folder that holds {name}")
    return root


@pytest.fixture(scope="session")
def real_flickr8k() -> Path:
    return real("flickr8k")


@pytest.fixture(scope="session")
def real_coco_captions() -> Path:
    return real("coco_captions")


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / "flickr8k"
    LAYOUTS[request.param](root)
    return root


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    root = tmp_path / "flickr8k"
    write_kaggle(root)
    return root
