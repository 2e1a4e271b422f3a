from __future__ import annotations

import platform
import re
from importlib import metadata
from pathlib import Path

import pytest

from autocomp.provenance import INSTRUCTIONS, commit, machine, versions


def test_versions_are_those_installed() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == metadata.version("torch")
    assert {"autocomp", "onnxruntime", "onnx", "torch-pruning", "numpy"} <= found.keys()


def test_a_package_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autocomp.provenance.PACKAGES", ("numpy", "no-such-package"))
    assert versions.__wrapped__().keys() == {"python", "numpy"}


def test_the_machine_is_described() -> None:
    found = machine()
    assert found["processor"]
    assert found["cores"] >= 1
    assert found["memory_gb"] > 0
    assert platform.machine() in found["system"]
    assert set(found["instructions"]) <= set(INSTRUCTIONS)


@pytest.mark.parametrize(
    ("told", "processor", "instructions"),
    [
        ("model name\t: A B\nflags\t\t: fpu avx2 avx512_vnni\n", "A B", ["avx2", "avx512_vnni"]),
        ("processor\t: 0\nFeatures\t: fp asimddp i8mm\n", "as Python says", ["asimddp", "i8mm"]),
        ("", "as Python says", []),
    ],
    ids=["x86", "ARM", "unknown"],
)
def test_what_a_processor_computes_fast_is_told(
    told: str, processor: str, instructions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"{told}\n\nflags: sve\n")
    monkeypatch.setattr("platform.processor", lambda: "as Python says")
    found = machine()
    assert (found["processor"], found["instructions"]) == (processor, instructions)


def test_the_commit_is_that_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", found)
    monkeypatch.setattr("autocomp.provenance.__file__", str(tmp_path / "autocomp" / "x.py"))
    assert commit.__wrapped__() is None
