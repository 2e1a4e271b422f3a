"""Measurements are of the artefact: its bytes and its predictions."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import Watched

from autocomp.checkpoint.folder import Checkpoint, open_checkpoint
from autocomp.measure import cost, quality

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def dense(tiny_study: Path) -> Checkpoint:
    checkpoint = open_checkpoint(tiny_study / "dense")
    checkpoint.task.size("dev")
    return checkpoint


@pytest.mark.parametrize("batch", [5, 64])
def test_quality_is_of_every_example_however_batched(
    batch: int, dense: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autocomp.measure.QUALITY_BATCH", batch)
    watched = Watched(dense.run)
    metrics, predictions = quality(dense.task, watched, "dev")
    assert len(predictions) == dense.task.size("dev") == 16
    assert max(watched.batches) == min(batch, 16)
    known = {name: dense.metrics[name] for name in metrics}
    assert metrics == pytest.approx(known)


def test_sizes_are_the_bytes_on_disk(dense: Checkpoint) -> None:
    found = cost(dense.task, dense.compressed(), dense.artifact, dense.config.target, steps=5)
    folder = dense.directory
    opened = ["encoder.onnx", "decoder.onnx", "tokenizer.json", "preprocessing.json"]
    fetched = ["model.safetensors", "config.json", "tokenizer.json", "preprocessing.json"]
    sizes = {name: (folder / name).stat().st_size for name in {*opened, *fetched}}
    assert found["size_mb"] == sum(sizes[name] for name in opened) / 1e6
    assert found["download_mb"] == sum(sizes[name] for name in fetched) / 1e6
    assert found["params"] >= found["nonzeros"] > 0
    assert found["peak_rss_mb"] > 20


def test_macs_grow_with_the_steps(dense: Checkpoint) -> None:
    compressed = dense.compressed()
    counts = [
        cost(dense.task, compressed, dense.artifact, dense.config.target, steps)["macs"]
        for steps in (1, 2, 3)
    ]
    assert counts[1] - counts[0] == counts[2] - counts[1] > 0
