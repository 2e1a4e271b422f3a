"""One trial: the dense model, the policy's steps, the artefact, what it measures."""

from __future__ import annotations

import logging
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from autocomp.apply import apply_
from autocomp.bench import Bench, examples
from autocomp.checkpoint.card import Card, write_card
from autocomp.checkpoint.folder import METRICS, seal, write_config, write_model
from autocomp.clock import Clock
from autocomp.errors import TrialStopped, UserError
from autocomp.files import write_folder, write_json
from autocomp.measure import cost, quality, sizes, with_scores
from autocomp.policy import Policy
from autocomp.predictions import Predictions
from autocomp.provenance import versions
from autocomp.results import Status, TrialResult, one_line, reason_of
from autocomp.rounding import Quantize
from autocomp.targets import Artifact, Run, load_target
from autocomp.timing import own_latency_ms, time_beside
from autocomp.work import Work

log = logging.getLogger(__name__)
SIZES = ("size_mb", "download_mb", "params", "macs")
LATENCIES = ("latency_ms", "latency_ratio", "latency_p90_ms")
SLACK = 0.1
"""A policy is stopped before retraining only if it breaks a bound by more than this fraction."""


@dataclass
class Findings:
    """What a trial has come to so far, whatever becomes of it."""

    clock: Clock = field(default_factory=Clock)
    metrics: dict[str, float] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    predictions: Predictions | None = None


def run_trial(
    bench: Bench,
    number: int,
    policy: Policy,
    checkpoint: Path,
    log_file: Path | None = None,
    predictions_file: Path | None = None,
) -> TrialResult:
    """Carry out `policy`, measure what comes of it, and leave its checkpoint in `checkpoint`.

    A complete trial also writes what it predicted of the dev split, to `predictions_file`.

    The same policy and seed on the same machine give the same model. What is known to break a bound
    before anything is retrained, and a loss that is not finite, stop the trial. A policy that does
    not fit the model, and whatever else goes wrong, fails it; the traceback of what may be our own
    fault is added to `log_file`, or to the debug log if there is none.
    """
    found = Findings()
    status: Status = "complete"
    reason = None
    try:
        with _threads(bench.target.threads):
            _stop_if_hopeless(bench, policy, found)
            write_folder(checkpoint, lambda directory: _carry_out(bench, policy, directory, found))
            if predictions_file is not None:
                assert found.predictions is not None
                found.predictions.write(predictions_file)
    except TrialStopped as stop:
        status, reason = "stopped", str(stop)
    except UserError as mistake:
        status, reason = "failed", one_line(str(mistake))
    except Exception as failure:
        status, reason = "failed", reason_of(failure)
        _keep_traceback(log_file)
    return TrialResult(
        number=number,
        policy_id=policy.id,
        status=status,
        reason=reason,
        metrics=found.metrics,
        skipped=(*bench.task.left_out(), *found.skipped),
        seconds=found.clock.seconds,
        seed=bench.seed,
        versions=versions(),
    )


def _keep_traceback(log_file: Path | None) -> None:
    if log_file is None:
        log.debug("the trial failed", exc_info=True)
        return
    with log_file.open("a", encoding="utf-8") as file:
        file.write(traceback.format_exc())


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """PyTorch on `count` threads: another number adds up in another order, to another model."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _carry_out(bench: Bench, policy: Policy, directory: Path, found: Findings) -> None:
    """Make the policy's checkpoint in `directory`, adding to what was found on the way."""
    work = Work(bench.dense.compressed(), bench)
    found.skipped += apply_(work, policy, found.clock)
    with found.clock("lower"):
        artifact, run = _lower(work, policy, directory)
    found.skipped += artifact.skipped
    with found.clock("evaluate"):
        metrics, predictions = quality(work.task, run, "dev")
        found.metrics |= metrics
        found.predictions = with_scores(work.task, predictions, "dev")
    with found.clock("measure"):
        found.metrics |= cost(work.task, work.compressed, artifact, bench.target, bench.steps)
        found.metrics |= _times(work, run) if policy.steps else bench.times
    write_json(directory / METRICS, found.metrics)
    write_card(directory, _card(work, policy, found, predictions))
    seal(directory)


def _card(work: Work, policy: Policy, found: Findings, predictions: list[Any]) -> Card:
    bench = work.bench
    return Card(
        task=bench.dense.config.task,
        policy=policy,
        target=bench.target,
        objectives=tuple(one.metric for one in bench.objectives),
        metrics=found.metrics,
        dense=bench.dense.metrics,
        image_size=work.task.image_size,
        dev_size=bench.task.size("dev"),
        examples=examples(bench.task, predictions, bench.shown),
        skipped=(*bench.task.left_out(), *found.skipped),
    )


def _lower(work: Work, policy: Policy, directory: Path) -> tuple[Artifact, Run]:
    """Write the model as it would ship, and open it."""
    bench, config = work.bench, work.bench.dense.config
    artifact = write_model(directory, work.task, bench.target, work.compressed, policy)
    write_config(
        artifact,
        work.compressed,
        config.task,
        bench.target,
        config.seed,
        config.fingerprint,
        config.steps,
        config.dense_latency_ms,
        work.image_size,
    )
    return artifact, load_target(bench.target.kind).open(artifact, threads=bench.target.threads)


def _times(work: Work, run: Run) -> dict[str, float]:
    bench = work.bench
    own_ms = own_latency_ms(
        bench.inference(work.task, run, None),
        bench.inference(bench.task, bench.dense.run, bench.steps),
        bench.dense.config.dense_latency_ms,
    )
    return {**_beside_dense(work, run), "latency_own_ms": own_ms}


def _beside_dense(work: Work, run: Run) -> dict[str, float]:
    """Latency, the ends of its ratio's 95 % interval, and its parts."""
    bench = work.bench
    timed = time_beside(
        bench.inference(work.task, run, bench.steps),
        bench.inference(bench.task, bench.dense.run, bench.steps),
    )
    return timed.metrics(bench.dense.config.dense_latency_ms, bench.sequential, bench.steps)


def _stop_if_hopeless(bench: Bench, policy: Policy, found: Findings) -> None:
    """Stop a policy whose size or latency, known without retraining, clearly breaks a bound."""
    bounds = [
        one
        for one in bench.objectives
        if one.metric in SIZES + LATENCIES and (one.at_most or one.at_least)
    ]
    steps = tuple(
        step.model_copy(update={"qat": False}) if isinstance(step, Quantize) else step
        for step in policy.steps
        if step.kind not in ("retrain", "gamma_l1")
    )
    if not bounds or not steps or len(steps) == len(policy.steps):
        return
    with found.clock("probe"):
        early = _probe(bench, Policy(steps=steps), any(one.metric in LATENCIES for one in bounds))
    for one in bounds:
        excess = one.violation(early[one.metric], bench.dense.metrics.get(one.metric))
        if excess > SLACK:
            found.metrics |= early
            raise TrialStopped(
                f"before retraining, {one.metric} is {early[one.metric]:.4g} "
                f"and so {excess:.0%} beyond its bound"
            )


def _probe(bench: Bench, policy: Policy, is_timed: bool) -> dict[str, float]:
    """What the policy's artefact weighs, and how fast it is if that is asked, untrained."""
    with _made(bench, policy) as (work, artifact, run, _):
        timed = _beside_dense(work, run) if is_timed else {}
        return sizes(work.task, work.compressed, artifact, bench.steps) | timed


def probe(bench: Bench, number: int, policy: Policy, examples: int) -> TrialResult:
    """What becomes of a policy without timing and much data: sizes, quality of some of dev.

    Nothing is kept. `examples` are the first ones of the split. A policy that does not fit the
    model raises what its steps raise.
    """
    with (
        _threads(bench.target.threads),
        _made(bench, policy) as (work, artifact, run, skipped),
    ):
        metrics, _ = quality(work.task, run, "dev", examples)
        metrics |= sizes(work.task, work.compressed, artifact, bench.steps)
        return TrialResult(
            number=number,
            policy_id=policy.id,
            status="complete",
            metrics=metrics,
            skipped=(*skipped, *artifact.skipped),
            seed=bench.seed,
            versions=versions(),
        )


@contextmanager
def _made(bench: Bench, policy: Policy) -> Iterator[tuple[Work, Artifact, Run, list[str]]]:
    """The policy carried out and opened, for as long as the files of its artefact are there."""
    with tempfile.TemporaryDirectory() as folder:
        work = Work(bench.dense.compressed(), bench)
        skipped = apply_(work, policy, Clock())
        artifact, run = _lower(work, policy, Path(folder))
        yield work, artifact, run, skipped
