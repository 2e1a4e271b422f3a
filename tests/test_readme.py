"""What the README shows of a task of one's own, run as it is written."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner, Result

import autocomp
from autocomp.cli.main import app
from autocomp.errors import UserError
from autocomp.ship.verify import depends_on_load

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


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


def test_it_runs_as_written_and_only_where_it_is_trusted(folder: Path, section: str) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
    mine = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), nn.Linear(1024, 2))
    save_file(mine.state_dict(), folder / "scratches.safetensors")
    (line,) = re.findall(r"^`autocomp (search .*?) --trust`", section, re.MULTILINE)
    command = [*line.split(), "--trials", 3, "--workers", 0, "--no-plot", "--no-report"]

    refused = run(*command)
    assert refused.exit_code == 2
    assert "must be trusted to be run, but 'scratches:Scratches' is not" in refused.stderr
    assert "scratches" not in sys.modules
    assert not (folder / "results").exists()
    searched = run(*command, "--trust")
    assert searched.exit_code == 0, searched.stderr
    assert "accuracy" in searched.stdout
    assert "failed" not in searched.stdout

    assert run("export", "results/scratches", "--trial", 2, "--out", "mine").exit_code == 0
    assert "scratches:Scratches" in (folder / "mine" / "config.json").read_text()
    assert run("verify", "mine").exit_code == 2
    with pytest.raises(UserError, match="must be trusted"):
        autocomp.load("mine")
    model = autocomp.load("mine", trust=True)
    raw = model.checkpoint.task.raw_inputs("dev", 32)
    scores = model.checkpoint.task.metrics(model.predict_all(raw), "dev")
    assert scores["accuracy"] == model.metrics["accuracy"]
    verified = json.loads(run("verify", "mine", "--trust", "--json").stdout)
    assert verified["rebuilt"] == "same files"
    differing = [row["metric"] for row in verified["metrics"] if row["agrees"] is False]
    assert all(map(depends_on_load, differing)), differing
