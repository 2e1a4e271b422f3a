"""Measures an artefact but for its time: quality, bytes and memory of the very files that ship."""

from __future__ import annotations

from typing import Any

from autocomp.checkpoint.folder import download_mb
from autocomp.compress.formats import Compressed
from autocomp.data.split import SplitName
from autocomp.evaluate.cost import count_macs, count_parameters
from autocomp.predictions import DECIMALS, Predictions
from autocomp.targets import Artifact, TargetSettings
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
    "latency_p90_ms",
    "latency_own_ms",
)
"""What is measured of every model, whatever its task; `part_metrics` has what its graphs add."""

QUALITY_BATCH = 64


def quality(
    task: Task, run: Run, split: SplitName, most: int | None = None
) -> tuple[dict[str, float], list[Any]]:
    """The task's metrics of a split, or of its first `most` examples, and the predictions.

    Examples are predicted in batches.
    """
    predictions = predict_all(task, run, split, most)
    return task.metrics(predictions, split), predictions


def predict_all(task: Task, run: Run, split: SplitName, most: int | None = None) -> list[Any]:
    """The predictions of a split, or of its first `most` examples."""
    predictions: list[Any] = []
    count = min(task.size(split), task.size(split) if most is None else most)
    for start in range(0, count, QUALITY_BATCH):
        inputs = task.inputs(split, start, min(start + QUALITY_BATCH, count))
        predictions += task.predict(run, inputs)
    return predictions


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


def cost(
    task: Task, compressed: Compressed, artifact: Artifact, target: TargetSettings, steps: int
) -> dict[str, float]:
    """`sizes`, and the peak memory of a process that runs the artefact as the target does."""
    return {
        **sizes(task, compressed, artifact, steps),
        "peak_rss_mb": peak_rss_mb(artifact, batch_size=target.batch_size, threads=target.threads),
    }
