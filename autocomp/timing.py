"""Times inference from raw bytes to prediction, and says where within it the time goes."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autocomp.targets import TargetSettings
from autocomp.targets.latency import Latency, clock_of, measure_ratio
from autocomp.tasks.base import Graph, Run, Task

TIMED_EXAMPLES = 8
READ, REST = "read", "rest"


class Inference:
    """One inference a call, over the examples in turn: two of them see the same ones.

    It notes the seconds each call spends reading, in each graph and in the rest, which is what the
    task does between them. With `steps` a sequential model takes exactly that many.
    """

    def __init__(
        self, task: Task, run: Run, raw: list[bytes], target: TargetSettings, steps: int | None
    ) -> None:
        self.clock = clock_of(target.threads)
        self._task = task
        self._run = run
        self._examples = itertools.cycle(raw)
        self._batch_size = target.batch_size
        self._steps = steps
        self._calls: list[dict[str, float]] = []

    def __call__(self) -> list[Any]:
        seconds: dict[str, float] = {}
        clock = self.clock

        def run(name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
            begin = clock()
            outputs = self._run(name, **inputs)
            seconds[name] = seconds.get(name, 0.0) + clock() - begin
            return outputs

        start = clock()
        batch = np.concatenate(
            [self._task.read(next(self._examples)) for _ in range(self._batch_size)]
        )
        seconds[READ] = clock() - start
        predictions = self._task.predict(run, batch, self._steps)
        seconds[REST] = clock() - start - sum(seconds.values())
        self._calls.append(seconds)
        return predictions

    def shares(self, calls: int) -> dict[str, float]:
        """The share of each part in the time of the last `calls` calls; together they are 1."""
        last = self._calls[-calls:]
        wholes = [sum(seconds.values()) for seconds in last]
        return {
            name: statistics.fmean(
                seconds[name] / whole for seconds, whole in zip(last, wholes, strict=True)
            )
            for name in last[0]
        }


@dataclass(frozen=True)
class Timing:
    """How long an inference takes beside the dense model's, and the share of each part in it."""

    latency: Latency
    shares: dict[str, float]

    def parts_ms(
        self, whole_ms: float, sequential: Collection[str], steps: int
    ) -> dict[str, float]:
        """Milliseconds by part of an inference of `whole_ms`.

        `<part>_ms`, but for the `sequential` graphs `<graph>_step_ms`, the time of one of `steps`
        steps. The parts, those `steps` times, add up to the whole.
        """
        return {
            part_metric(name, sequential): share * whole_ms / (steps if name in sequential else 1)
            for name, share in self.shares.items()
        }

    def metrics(self, dense_ms: float, sequential: Collection[str], steps: int) -> dict[str, float]:
        """What is recorded: ratios, and milliseconds where the dense model takes `dense_ms`."""
        low, high = self.latency.interval
        latency_ms = self.latency.ratio * dense_ms
        return {
            "latency_ratio": self.latency.ratio,
            "latency_ratio_low": low,
            "latency_ratio_high": high,
            "latency_ms": latency_ms,
            "latency_p90_ms": self.latency.ratio_p90 * dense_ms,
            **self.parts_ms(latency_ms, sequential, steps),
        }


def part_metric(name: str, sequential: Collection[str]) -> str:
    """The metric that has the milliseconds of a part."""
    return f"{name}_step_ms" if name in sequential else f"{name}_ms"


def part_metrics(task: Task) -> list[str]:
    """The metrics of all parts of the task's inference."""
    names = [READ, *_graphs(task), REST]
    return [part_metric(name, sequential_graphs(task)) for name in names]


def sequential_graphs(task: Task) -> frozenset[str]:
    """The graphs of the task's model that run once a step."""
    return frozenset(name for name, graph in _graphs(task).items() if graph.sequential)


def _graphs(task: Task) -> dict[str, Graph]:
    return task.graphs(task.build().eval())


def is_time(metric: str) -> bool:
    """Whether a metric says how long something took."""
    return metric.startswith("latency_") or metric.endswith("_ms")


def time_beside(candidate: Inference, dense: Inference) -> Timing:
    """Time from raw bytes to prediction beside the dense model's."""
    latency = measure_ratio(candidate, dense, clock=candidate.clock)
    return Timing(latency, candidate.shares(latency.pairs))


def time_dense(
    task: Task, run: Run, raw: list[bytes], target: TargetSettings, steps: int
) -> tuple[Timing, float]:
    """The dense model beside itself, at a ratio of 1, and its milliseconds, the unit of ratios."""
    timed = time_beside(*(Inference(task, run, raw, target, steps) for _ in range(2)))
    alone_ms = (timed.latency.candidate_ms + timed.latency.reference_ms) / 2
    return replace(timed, latency=replace(timed.latency, ratio=1.0, interval=(1.0, 1.0))), alone_ms


def own_latency_ms(own: Inference, dense: Inference, dense_ms: float) -> float:
    """Milliseconds of an inference that stops when the model says so, beside the dense model's.

    As all times are, a ratio, to +- 5 % here, times the milliseconds that the dense model takes.
    """
    return dense_ms * measure_ratio(own, dense, half_width=0.05, clock=own.clock).ratio
