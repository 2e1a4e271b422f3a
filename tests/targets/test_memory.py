from __future__ import annotations

from pathlib import Path

import pytest
from small_models import Mlp, Step, compress, mlp_graph, step_graph

from autocomp.compress.formats import Compressed
from autocomp.errors import CheckpointError
from autocomp.targets.base import Artifact
from autocomp.targets.memory import own_peak_rss_mb, peak_rss_mb
from autocomp.targets.onnxruntime import target


def test_a_process_that_only_runs_the_model_is_smaller_than_one_with_torch(tmp_path: Path) -> None:
    models = {"small": (Step(100, 64), 32), "large": (Step(60_000, 128), 32)}
    peaks = {}
    for name, (model, bits) in models.items():
        compressed = compress(model, bits)
        graphs = {"step": step_graph(model)}
        peaks[name] = peak_rss_mb(target.lower(graphs, compressed, tmp_path / name))
    assert 20 < peaks["small"] < own_peak_rss_mb()
    assert peaks["large"] - peaks["small"] > 60_000 * 128 * 4 / 1e6


def test_a_broken_file_gives_its_own_line(tmp_path: Path) -> None:
    model = Mlp()
    artifact = target.lower({"mlp": mlp_graph(model)}, Compressed(model), tmp_path)
    artifact.files[0].write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match=r"mlp.onnx: must be a whole ONNX file"):
        peak_rss_mb(artifact)


def test_an_empty_directory_and_a_late_answer_are_named(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, {})
    with pytest.raises(CheckpointError, match="must hold ONNX files"):
        peak_rss_mb(artifact)
    with pytest.raises(CheckpointError, match=r"within 0.001 s"):
        peak_rss_mb(artifact, timeout_s=0.001)
