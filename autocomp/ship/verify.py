"""Measures a checkpoint again, from its own files, and compares with what its study recorded."""

from __future__ import annotations

import logging
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autocomp.checkpoint.folder import METRICS, Checkpoint, open_checkpoint, write_model
from autocomp.compress.formats import Compressed
from autocomp.data.split import SplitName
from autocomp.errors import CheckpointError
from autocomp.measure import cost, predict_all, quality
from autocomp.policy import Policy
from autocomp.ship.fitting import fitting
from autocomp.targets import Artifact, load_target
from autocomp.timing import (
    TIMED_EXAMPLES,
    Inference,
    is_time,
    own_latency_ms,
    sequential_graphs,
    time_beside,
)
from autocomp.trust import trusting

log = logging.getLogger(__name__)

RECORDED_SPLIT: SplitName = "dev"
QUALITY = 1e-9
"""Quality repeats but for the order in which the same numbers are added up."""
TOLERANCES = {
    "size_mb": 0.0,
    "download_mb": 0.0,
    "params": 0.0,
    "nonzeros": 0.0,
    "macs": 0.0,
    "peak_rss_mb": 0.2,
    "latency_ratio": 0.15,
    "latency_ms": 0.15,
}
"""Metric -> the most it may differ, as a fraction."""

Rebuilt = Literal["same files", "same predictions", "different"]


@dataclass(frozen=True)
class Comparison:
    """One metric as it was recorded and as it is now; `agrees` is None if nothing can be said.

    `measured` is None for a metric that cannot be had here (METEOR without Java), `recorded` for
    one the study did not take (quality on the test split).
    """

    metric: str
    recorded: float | None
    measured: float | None
    tolerance: float | None

    @property
    def agrees(self) -> bool | None:
        if self.recorded is None or self.measured is None or self.tolerance is None:
            return None
        absolute = QUALITY if self.tolerance else 0.0
        return math.isclose(self.recorded, self.measured, rel_tol=self.tolerance, abs_tol=absolute)


@dataclass(frozen=True)
class Verification:
    """All comparisons, and what the packed weights rebuild: the files beside them, or others.

    "same predictions" are what other versions of PyTorch or ONNX may come to.
    """

    split: SplitName
    rows: tuple[Comparison, ...]
    rebuilt: Rebuilt

    @property
    def reproduces(self) -> bool:
        """True if the packed weights give the files that ship, or files that predict the same."""
        return self.rebuilt != "different"

    @property
    def differing(self) -> tuple[str, ...]:
        """The metrics that are not as recorded."""
        return tuple(row.metric for row in self.rows if row.agrees is False)

    @property
    def agrees(self) -> bool:
        """True if the checkpoint is what it says: nothing that can be compared differs."""
        return self.reproduces and not self.differing


def verify(
    directory: Path | str, split: SplitName = RECORDED_SPLIT, *, trust: bool = False
) -> Verification:
    """Measure the checkpoint in a folder again, with nothing but it and the data.

    Quality is compared on the split it was recorded on and only measured on any other. Latency is
    that beside a dense model of the same architecture, built anew: it depends on no weight's value.
    `CheckpointError` if the checkpoint is incomplete, truncated or edited, or its tensors fit
    together to no model; `DataError` if the data are not there. `trust` lets a task of the user's
    own (`kind: python`) run its code.
    """
    with trusting(trust):
        return _verify(directory, split)


def _verify(directory: Path | str, split: SplitName) -> Verification:
    checkpoint = open_checkpoint(directory)
    recorded = checkpoint.metrics
    if not recorded:
        raise CheckpointError(f"{checkpoint.directory / METRICS}: must hold what to compare with")
    compressed = fitting(checkpoint)
    log.info("%s: predicting all of %s", checkpoint.directory, split)
    scores, predictions = quality(checkpoint.task, checkpoint.run, split)
    target, steps = checkpoint.config.target, checkpoint.config.steps
    log.info("%s: measuring memory, and time beside the dense model", checkpoint.directory)
    costs = cost(checkpoint.task, compressed, checkpoint.artifact, target, steps)
    measured = {**scores, **costs, **_times(checkpoint)}
    log.info("%s: rebuilding its files from the packed weights", checkpoint.directory)
    names = [name for name in recorded if split == RECORDED_SPLIT or not _is_quality(name)]
    rows = tuple(
        Comparison(
            metric=name,
            recorded=recorded.get(name) if name in names else None,
            measured=measured.get(name),
            tolerance=QUALITY if _is_quality(name) else TOLERANCES.get(name),
        )
        for name in dict.fromkeys([*scores, *names, *measured])
    )
    return Verification(split, rows, _rebuilt(checkpoint, compressed, split, predictions))


def _times(checkpoint: Checkpoint) -> dict[str, float]:
    task, dense_task = checkpoint.task, checkpoint.dense_task
    target, steps = checkpoint.config.target, checkpoint.config.steps
    own, raw = checkpoint.run, task.raw_inputs(RECORDED_SPLIT, TIMED_EXAMPLES)
    dense_ms = checkpoint.config.dense_latency_ms
    with tempfile.TemporaryDirectory() as folder:
        dense_model = Compressed(dense_task.build())
        dense = write_model(Path(folder), dense_task, target, dense_model, Policy())
        dense_run = load_target(target.kind).open(dense, threads=target.threads)
        beside = Inference(dense_task, dense_run, raw, target, steps)
        timed = time_beside(Inference(task, own, raw, target, steps), beside)
        own_ms = own_latency_ms(Inference(task, own, raw, target, None), beside, dense_ms)
    return {**timed.metrics(dense_ms, sequential_graphs(task), steps), "latency_own_ms": own_ms}


def depends_on_load(metric: str) -> bool:
    """Whether what else the machine does may change a metric."""
    return is_time(metric) or metric == "peak_rss_mb"


def _is_quality(metric: str) -> bool:
    return metric not in TOLERANCES and not is_time(metric)


def _rebuilt(
    checkpoint: Checkpoint, compressed: Compressed, split: SplitName, predictions: list[Any]
) -> Rebuilt:
    """Lower the packed weights once more and compare with the files that ship, or what they say."""
    task, target = checkpoint.task, checkpoint.config.target
    with tempfile.TemporaryDirectory() as folder:
        made = write_model(Path(folder), task, target, compressed, checkpoint.policy)
        if _contents(made) == _contents(checkpoint.artifact):
            return "same files"
        run = load_target(target.kind).open(made, threads=target.threads)
        return "same predictions" if predict_all(task, run, split) == predictions else "different"


def _contents(artifact: Artifact) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in artifact.files}
