"""Photos with captions in JSON, from a folder to the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from annotation_files import TRAIN, WRITERS, Source
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture(params=WRITERS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    return WRITERS[request.param](tmp_path / "data", {**TRAIN, "x.jpg": ["a cat"]})


@pytest.fixture
def check(cli: Cli, tmp_path: Path, space: dict[str, Any], source: Source) -> Callable[..., Result]:
    def checked(*options: str, **changes: Any) -> Result:
        data = source.settings.model_dump() | {"image_size": 32} | changes
        space["task"]["data"] = data
        path = tmp_path / "space.yaml"
        path.write_text(yaml.safe_dump(space))
        return cli("check", path, *options)

    return checked


def test_check(check: Callable[..., Result]) -> None:
    result = check("--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["estimate"]["trials"] > 0
    assert "skipped" not in result.stderr


def test_check_says_what_is_left_out(check: Callable[..., Result], source: Source) -> None:
    (source.images / "x.jpg").write_bytes(b"damaged")
    result = check("--no-estimate", max_unreadable=0.25)
    assert result.exit_code == 0, result.stderr
    assert "train: 1 skipped: x.jpg: must be an image Pillow can read, but its 7 b" in result.stderr


def test_check_refuses_what_is_too_damaged(check: Callable[..., Result], source: Source) -> None:
    (source.images / "x.jpg").unlink()
    result = check("--no-estimate")
    assert result.exit_code == 2
    assert "but 1 of 4 are: x.jpg: no such file" in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
