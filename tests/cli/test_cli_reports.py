"""`autocomp report` and `autocomp dashboard`, and the report at the end of a search."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.request
import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Cli = Callable[..., Result]
MAIN = "from autocomp.cli.main import main; main()"


def test_search_leaves_a_report(study: Path) -> None:
    assert (study / "report.html").read_text().startswith("<!doctype html>")
    assert "report.html" in (study.parent / "stdout.txt").read_text()
    for folder in (study / "trials").iterdir():
        assert (folder / "tensors.json").exists()


def test_report_writes_where_it_is_told(cli: Cli, study: Path, tmp_path: Path) -> None:
    result = cli("report", study, "--out", tmp_path / "page.html")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'page.html'}\n")
    assert (tmp_path / "page.html").read_text() == (study / "report.html").read_text()


@pytest.mark.parametrize("works", [True, False], ids=["opens", "no browser"])
def test_report_opens(
    cli: Cli, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or works)
    result = cli("report", study, "--out", tmp_path / "a b.html", "--open")
    assert result.exit_code == 0
    assert opened == [(tmp_path / "a b.html").as_uri()]
    assert ("no browser could be started" in result.stderr) is not works


def test_a_damaged_study_is_a_mistake(cli: Cli, study: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(study, tmp_path / "study")
    (copied / "trials" / "00002" / "tensors.json").write_text("{")
    result = cli("report", copied)
    assert result.exit_code == 2
    assert "must be a readable JSON file" in result.stderr


@pytest.mark.parametrize("option", [[], ["--no-report"]], ids=["damaged", "not wanted"])
def test_a_search_does_without_a_report(
    cli: Cli, study: Path, tmp_path: Path, option: list[str]
) -> None:
    copied = shutil.copytree(study, tmp_path / "study")
    (copied / "report.html").unlink()
    (copied / "trials/00002/tensors.json").write_text("{")
    space = study.parent / "tiny.yaml"
    result = cli("search", space, "--trials", 4, "--workers", 0, "--out", copied, *option)
    assert result.exit_code == 0
    assert "trial" in result.stdout
    assert not (copied / "report.html").exists()
    assert ("no report: " in result.stderr) is (not option)


def test_dashboard_serves_until_it_is_interrupted(study: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    before = (study / "journal.log").read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "dashboard", study, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().decode().strip()
            assert address.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(f"{address}api/studies", timeout=20) as answer:
                assert b"autocomp" in answer.read()
            process.terminate()  # SIGINT may be ignored where the tests run in the background
            assert process.wait(timeout=20) == 130
        finally:
            process.kill()
    assert (study / "journal.log").read_bytes() == before


def test_dashboard_needs_a_study(cli: Cli, tmp_path: Path) -> None:
    result = cli("dashboard", tmp_path)
    assert result.exit_code == 2
    assert "must be a study folder" in result.stderr
