"""One made study for the tests that only read it, with a cache of its own for its images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_study import add_predictions, add_tensors, make_study


@pytest.fixture(scope="session", autouse=True)
def _report_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOCOMP_CACHE", str(tmp_path_factory.mktemp("report_cache")))
        yield


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study as searches left it before they kept tensors and predictions."""
    return make_study(tmp_path_factory.mktemp("bare") / "bare")


@pytest.fixture(scope="session")
def whole(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with everything a report can show."""
    directory = shutil.copytree(bare, tmp_path_factory.mktemp("whole") / "whole")
    add_tensors(directory)
    add_predictions(directory)
    return directory
