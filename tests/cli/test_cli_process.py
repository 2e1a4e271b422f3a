"""What only a process of its own can show: imports, streams, pipes and interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

MAIN = "from autocomp.cli.main import main; main()"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", MAIN, *map(str, arguments)]


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import autocomp.cli.main", id="main"),
        pytest.param(
            "import autocomp.cli.catalogue as c; [f() for f in c.CATALOGUE.values()]", id="list"
        ),
    ],
)
def test_loads_no_torch(code: str) -> None:
    code += "; import sys; print({'torch', 'ray', 'optuna', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_help_is_on_standard_output() -> None:
    done = subprocess.run(command("--help"), capture_output=True, text=True, check=True)
    for name in ("search", "init", "check", "run", "status", "front", "export", "verify"):
        assert name in done.stdout
    assert done.stderr == ""


def test_a_mistake_is_on_standard_error(tmp_path: Path) -> None:
    done = subprocess.run(command("status", tmp_path), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"{tmp_path}: must be a study folder")
    assert done.stderr.count("\n") == 1


def test_a_bug_keeps_its_traceback() -> None:
    code = "import autocomp.cli.catalogue as c; c.CATALOGUE = None; " + MAIN
    done = subprocess.run([sys.executable, "-c", code, "list"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_reader_may_go_away() -> None:
    with subprocess.Popen(
        command("list"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_an_interrupt_ends_cleanly(tmp_path: Path, space_file: Path, sent: signal.Signals) -> None:
    space = yaml.safe_load(space_file.read_text())
    space["task"]["dense"]["steps"] = 100_000
    space_file.write_text(yaml.safe_dump(space))
    arguments = ["search", space_file, "--workers", 0, "--out", tmp_path / "study"]
    with subprocess.Popen(
        command("-v", *arguments),
        stderr=subprocess.PIPE,
        text=True,
        # a shell lets what it starts in the background ignore interrupts, and so would the child
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(sent)
        rest = process.stderr.read()
    assert first.startswith("dense model: step 1 of 100000")
    assert rest.splitlines()[-1] == "interrupted; the same command resumes"
    assert "Traceback" not in rest
    assert process.returncode == 130


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_a_scheduler_ends_a_search_with_workers_cleanly(tmp_path: Path, space_file: Path) -> None:
    arguments = [
        "search",
        space_file,
        "--workers",
        1,
        "--trials",
        1000,
        "--out",
        tmp_path / "study",
    ]
    with subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = next(line for line in process.stderr if line.startswith("trial "))
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert first.startswith("trial 0: ")
    assert rest.splitlines()[-1] == "interrupted; the same command resumes"
    assert "SIGTERM" not in rest
    assert "Traceback" not in rest
    assert process.returncode == 130
