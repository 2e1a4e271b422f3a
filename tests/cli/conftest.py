"""The command line on a captioner so small that a search of it takes seconds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

Cli = Callable[..., Result]

SPACE: dict[str, Any] = {
    "task": {
        "kind": "captioning",
        "data": {"kind": "scenes", "train": 48, "dev": 16, "test": 16, "image_size": 32},
        "model": {
            "kind": "cnn_transformer",
            "d_model": 32,
            "heads": 2,
            "ffn": 64,
            "decoder_layers": 2,
        },
        "generation": {"max_length": 8},
        "dense": {"steps": 3, "batch_size": 16},
        "min_count": 1,
        "captions_per_image": 2,
        "meteor": False,
    },
    "target": {"kind": "onnxruntime"},
    "objectives": {"cider": "maximize", "size_mb": "minimize", "latency_ms": "minimize"},
    "policy": {
        "steps": [
            {
                "kind": "drop_layers",
                "layers": "decoder.layers",
                "keep": {"int_range": [1, 2]},
            },
            {"kind": "retrain", "steps": 2, "batch_size": 16},
            {"kind": "quantize", "layers": "**", "bits": {"choice": [32, 8]}},
        ]
    },
    "search": {"sampler": "random", "seed": 0},
}


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Runs a command in this process; its result has exit_code, stdout and stderr."""
    from autocomp.cli.main import app

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session", autouse=True)
def _cli_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOCOMP_CACHE", str(tmp_path_factory.mktemp("cli_cache")))
        yield


@pytest.fixture
def space() -> dict[str, Any]:
    """A copy of the tiny space, to be changed."""
    return copy.deepcopy(SPACE)


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    return write_space(tmp_path / "tiny.yaml", SPACE)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Path:
    """The folder of a study of four trials that `autocomp search` made."""
    folder = tmp_path_factory.mktemp("cli_study")
    space_file = write_space(folder / "tiny.yaml", SPACE)
    result = cli("search", space_file, "--trials", 4, "--workers", 0, "--out", folder / "study")
    assert result.exit_code == 0, result.stderr
    (folder / "stdout.txt").write_text(result.stdout)
    (folder / "stderr.txt").write_text(result.stderr)
    return folder / "study"


def write_space(path: Path, space: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(space, sort_keys=False))
    return path
