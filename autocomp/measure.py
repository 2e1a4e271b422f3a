"""Measures an artefact: quality, bytes, time and memory, all of the very files that ship."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from autocomp.checkpoint.folder import download_mb
from autocomp.compress.formats import Compressed
from autocomp.data.split import SplitName
from autocomp.evaluate.cost import count_macs, count_parameters
from autocomp.predictions import DECIMALS, Predictions
from autocomp.targets import Artifact, TargetSettings
from autocomp.targets.latency import Latency, machine_lock, measure_ratio
from autocomp.targets.memory import peak_rss_mb
from autocomp.tasks.base import Run, Task

COSTS = (
    "size_mb",
    "download_mb",
    "params",
    "nonzeros",
    "macs",
    "peak_rss_mb",
    "latency_ratio",
    "latency_ms",
    "latency_own_ms",
)
"""What is measured of every model, whatever its task."""

QUALITY_BATCH = 64
TIMED_EXAMPLES = 8


def quality(task: Task, run: Run, split: SplitName) -> tuple[dict[str, float], list[Any]]:
    """The task's metrics of a whole split, predicted in batches, and the predictions."""
    predictions: list[Any] = []
    for start in range(0, task.size(split), QUALITY_BATCH):
        inputs = task.inputs(split, start, min(start + QUALITY_BATCH, task.size(split)))
        predictions += task.predict(run, inputs)
    return task.metrics(predictions, split), predictions


def with_scores(task: Task, predictions: list[Any], split: SplitName) -> Predictions:
    """The predictions of a whole split as a study keeps them, with the scores of each example."""
    scores = task.per_example(predictions, split)
    return Predictions(
        split=split,
        names=task.names(split),
        predictions=tuple(predictions),
        scores={name: tuple(each.round(DECIMALS).tolist()) for name, each in scores.items()},
    )


def sizes(task: Task, compressed: Compressed, artifact: Artifact, steps: int) -> dict[str, float]:
    """Bytes on disk and counts on the model: all that needs no run."""
    return {
        "size_mb": artifact.size_mb,
        "download_mb": download_mb(artifact),
        **count_parameters(compressed.module),
        "macs": count_macs(task.graphs(compressed.module), steps),
    }


def cost(task: Task, compressed: Compressed, artifact: Artifact, steps: int) -> dict[str, float]:
    """`sizes`, and the peak memory of a process that runs the artefact."""
    return {
        **sizes(task, compressed, artifact, steps),
        "peak_rss_mb": peak_rss_mb(artifact),
    }


def latency(
    candidate: tuple[Task, Run],
    dense: tuple[Task, Run],
    raw: list[bytes],
    target: TargetSettings,
    steps: int,
) -> Latency:
    """Time from raw bytes to prediction beside the dense model, over the same number of steps."""
    return measure_ratio(
        _call(*candidate, raw, target.batch_size, steps),
        _call(*dense, raw, target.batch_size, steps),
    )


def dense_latency_ms(
    task: Task, run: Run, raw: list[bytes], target: TargetSettings, steps: int
) -> float:
    """Milliseconds of the dense model's inference over `steps` steps; ratios multiply this."""
    timed = latency((task, run), (task, run), raw, target, steps)
    return (timed.candidate_ms + timed.reference_ms) / 2


def own_latency_ms(task: Task, run: Run, raw: list[bytes], target: TargetSettings) -> float:
    """Median milliseconds of an inference that stops when the model says so."""
    call = _call(task, run, raw, target.batch_size, None)
    with machine_lock():
        call()
        return statistics.median(_timed_ms(call) for _ in range(2 * TIMED_EXAMPLES))


def _timed_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _call(
    task: Task, run: Run, raw: list[bytes], batch_size: int, steps: int | None
) -> Callable[[], object]:
    """One inference a call, over the examples in turn: two such callables see the same ones."""
    examples = itertools.cycle(raw)

    def call() -> list[Any]:
        batch = np.concatenate([task.read(next(examples)) for _ in range(batch_size)])
        return task.predict(run, batch, steps)

    return call
