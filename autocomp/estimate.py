"""How long a search will take, by timing a little of it on the dense architecture."""

from __future__ import annotations

import itertools
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from autocomp.checkpoint.folder import write_model
from autocomp.compress.formats import Compressed
from autocomp.decisions import validate
from autocomp.dense import WEIGHTS, dense_key
from autocomp.errors import SpaceError
from autocomp.files import cache_dir
from autocomp.measure import QUALITY_BATCH
from autocomp.policy import Policy, Retrain
from autocomp.retrain.loop import retrain_
from autocomp.space.binding import BoundSpace
from autocomp.space.space import SearchSpace
from autocomp.targets import TargetSettings, load_target
from autocomp.tasks.base import Task
from autocomp.tasks.dense import DenseSettings
from autocomp.tasks.registry import build_task, fingerprint, task_settings

TIMED_STEPS = 3
DRAWS = 200
"""Policies drawn to learn how much retraining one asks for on average."""
TEACHER = 4 / 3
"""A step costs three forward passes, of which the backward pass is two; a teacher adds one."""
LATENCY_S = 7.0
"""What timing against the dense model and the memory of a fresh process take, at most."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of the dense model (0 if it is cached), and of one trial by stage.

    Policies are drawn at random and trained at the dense model's speed. A sampler that comes to
    favour small models is done sooner, workers that share cores take longer.
    """

    dense_s: float
    retrain_s: float
    lower_s: float
    evaluate_s: float
    trials: int
    workers: int

    @property
    def trial_s(self) -> float:
        return self.retrain_s + self.lower_s + self.evaluate_s + LATENCY_S

    @property
    def total_s(self) -> float:
        return self.dense_s + self.trials * self.trial_s / min(self.workers, self.trials)


@dataclass(frozen=True)
class Pace:
    """Seconds before the first step of a retrain, and for each example it then trains on."""

    setup_s: float
    example_s: float

    def seconds(self, step: Retrain) -> float:
        teacher = TEACHER if step.has_teacher else 1.0
        return self.setup_s + step.steps * step.batch_size * self.example_s * teacher


def estimate(space: SearchSpace, bound: BoundSpace, trials: int, workers: int) -> Estimate:
    """Time a few training steps, one lowering and one batch of an evaluation, and add them up."""
    task = build_task(space.task)
    target = validate(TargetSettings, dict(space.target), "target", SpaceError)
    lower_s, evaluate_s = _artifact_seconds(task, target)
    return Estimate(
        dense_s=_dense_seconds(task, space),
        retrain_s=_retrain_seconds(task, bound, space.search.seed),
        lower_s=lower_s,
        evaluate_s=evaluate_s,
        trials=trials,
        workers=workers,
    )


def _dense_seconds(task: Task, space: SearchSpace) -> float:
    """Nothing if its weights are given or cached."""
    dense: DenseSettings = task_settings(space.task).dense
    if dense.checkpoint is not None:
        return 0.0
    key = dense_key(dense, fingerprint(task, space.task), space.search.seed)
    if (cache_dir() / "dense" / key / WEIGHTS).exists():
        return 0.0
    return sum(_pace(task.build(), task, stage).seconds(stage) for stage in dense.stages)


def _retrain_seconds(task: Task, bound: BoundSpace, seed: int) -> float:
    """What the retrain steps of a policy drawn at random take on average."""
    examples = bound.retraining()
    if not examples:
        return 0.0
    pace = _pace(task.build(), task, examples[0])
    rng = random.Random(seed)
    drawn = [bound.random(rng) for _ in range(DRAWS)]
    return statistics.mean(
        sum(pace.seconds(step) for step in policy.steps if isinstance(step, Retrain))
        for policy in drawn
    )


def _pace(module: nn.Module, task: Task, step: Retrain) -> Pace:
    # without the teacher: the features of a model that is not trained yet are not worth caching
    short = step.model_copy(
        update={"steps": TIMED_STEPS, "distill": 0.0, "hidden": 0.0, "loss": "task"}
    )
    ends = [time.perf_counter()]
    retrain_(module, short, task, on_step=lambda *_: ends.append(time.perf_counter()))
    step_s = statistics.median(b - a for a, b in itertools.pairwise(ends[1:]))
    setup_s = max(0.0, ends[1] - ends[0] - step_s)
    return Pace(setup_s, step_s / step.batch_size)


def _artifact_seconds(task: Task, target: TargetSettings) -> tuple[float, float]:
    """Seconds to lower the dense model, and to predict the dev split in batches."""
    runtime = load_target(target.kind)
    size = task.size("dev")
    count = min(QUALITY_BATCH, size)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        artifact = write_model(Path(folder), task, target, Compressed(task.build()), Policy())
        run = runtime.open(artifact, threads=target.threads)
        lowered = time.perf_counter()
        task.predict(run, task.inputs("dev", 0, count))
        predicted = time.perf_counter()
    return lowered - start, (predicted - lowered) * size / count
