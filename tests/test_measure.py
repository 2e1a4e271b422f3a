"""Measurements are of the artefact: its bytes, its predictions, its time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autocomp.checkpoint.folder import Checkpoint, open_checkpoint
from autocomp.measure import cost, dense_latency_ms, latency, own_latency_ms, quality
from autocomp.targets import TargetSettings
from autocomp.tasks.base import Run, Task

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def dense(tiny_study: Path) -> Checkpoint:
    checkpoint = open_checkpoint(tiny_study / "dense")
    checkpoint.task.size("dev")
    return checkpoint


class Watched:
    """A run that writes down what it is asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.calls: list[str] = []
        self.batches: set[int] = set()

    def __call__(self, name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        self.calls.append(name)
        if name == "encoder":
            self.batches.add(len(inputs["images"]))
        return self.run(name, **inputs)


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
    found = cost(dense.task, dense.compressed(), dense.artifact, steps=5)
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
    counts = [cost(dense.task, compressed, dense.artifact, steps)["macs"] for steps in (1, 2, 3)]
    assert counts[1] - counts[0] == counts[2] - counts[1] > 0


@pytest.mark.parametrize("batch_size", [1, 3])
def test_time_is_of_the_same_number_of_steps_for_both(batch_size: int, dense: Checkpoint) -> None:
    candidate, reference = Watched(dense.run), Watched(dense.run)
    raw = dense.task.raw_inputs("dev", 4)
    target = TargetSettings(batch_size=batch_size)
    timed = latency(dense.task, candidate, reference, raw, target, steps=3)
    assert candidate.batches == reference.batches == {batch_size}
    calls = candidate.calls.count("encoder")
    assert calls == reference.calls.count("encoder") > timed.pairs
    assert candidate.calls.count("decoder") == 3 * calls
    assert 0.2 < timed.ratio < 5


def test_own_latency_ends_when_the_model_says_so(dense: Checkpoint) -> None:
    watched = Watched(dense.run)
    raw = dense.task.raw_inputs("dev", 2)
    assert own_latency_ms(dense.task, watched, raw, TargetSettings()) > 0
    own = [dense.task.predict(dense.run, dense.task.read(one)) for one in raw]
    steps = [min(len(caption.split()) + 1, 16) for (caption,) in own]
    called = watched.calls.count("encoder")
    assert watched.calls.count("decoder") == sum(steps[i % 2] for i in range(called))


def test_more_steps_take_longer(dense: Checkpoint) -> None:
    task: Task = dense.task
    raw = task.raw_inputs("dev", 2)
    few, many = (
        dense_latency_ms(task, dense.run, raw, TargetSettings(), steps) for steps in (1, 12)
    )
    assert 0 < few < many
