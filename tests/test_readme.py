"""What the README shows of a task of one's own, run as it is written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from autocomp.cli.main import app

README = Path(__file__).parents[1] / "README.md"
HEADING = "## Your own task\n"
pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def section() -> str:
    text = README.read_text(encoding="utf-8")
    return HEADING + text.partition(HEADING)[2].partition("\n## ")[0].strip()


@pytest.fixture
def folder(section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of somebody who has copied the section and has such data and weights."""
    blocks = dict(re.findall(r"```(python|yaml)\n(.*?)```", section, re.DOTALL))
    (tmp_path / "scratches.py").write_text(blocks["python"])
    (tmp_path / "scratches.yaml").write_text(blocks["yaml"])
    (tmp_path / "scratches").mkdir()
    for seed, split in enumerate(("train", "dev", "test")):
        rng = np.random.default_rng(seed)
        images, scratched = rng.normal(size=(32, 1, 8, 8)), rng.integers(2, size=32)
        images[scratched == 1, 0, 3] += 4
        np.savez(
            tmp_path / "scratches" / split, images=images.astype(np.float32), scratched=scratched
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "scratches", raising=False)
    return tmp_path


def test_it_is_short(section: str) -> None:
    assert len(section.splitlines()) <= 30


def test_it_runs_as_written(folder: Path, section: str) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
    mine = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), nn.Linear(1024, 2))
    save_file(mine.state_dict(), folder / "scratches.safetensors")
    (line,) = re.findall(r"^`autocomp (search .*?)`", section, re.MULTILINE)
    command = [*line.split(), "--trials", "4", "--workers", "0", "--no-plot"]
    untrusted = CliRunner().invoke(app, [one for one in command if one != "--trust"])
    assert untrusted.exit_code == 2
    assert "scratches" not in sys.modules
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    assert "accuracy" in result.stdout
    assert "failed" not in result.stdout
    assert len(list((folder / "results/scratches/trials").iterdir())) == 4
