from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from autocomp.errors import UserError
from autocomp.targets import Artifact, TargetSettings, load_target


def test_importing_the_targets_loads_neither_torch_nor_a_runtime() -> None:
    code = (
        "import sys, autocomp.targets, autocomp.targets.latency, autocomp.targets.memory; "
        "print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_target_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"target.kind: must be one of onnxruntime, but got 'onnx'"):
        load_target("onnx")


def test_an_artifact_weighs_all_that_inference_opens(tmp_path: Path) -> None:
    for name, size in {"a.onnx": 1000, "tokenizer.json": 500, "metrics.json": 9}.items():
        (tmp_path / name).write_bytes(bytes(size))
    artifact = Artifact(tmp_path, {"a": "a.onnx"}, assets=("tokenizer.json",))
    assert artifact.size_bytes == 1500
    assert artifact.size_mb == 0.0015


@pytest.mark.parametrize("field", ["threads", "batch_size"])
def test_settings_are_at_least_one(field: str) -> None:
    with pytest.raises(ValidationError):
        TargetSettings(**{field: 0})
