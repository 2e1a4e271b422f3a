"""One trial: the dense model, the policy's steps, the artefact, what it measures."""

from __future__ import annotations

import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

from autocomp.apply import Work, apply_
from autocomp.bench import Bench
from autocomp.checkpoint.card import write_card
from autocomp.checkpoint.folder import METRICS, write_config, write_model
from autocomp.clock import Clock
from autocomp.errors import TrialStopped
from autocomp.files import write_folder, write_json
from autocomp.measure import cost, latency, own_latency_ms, quality
from autocomp.policy import Policy
from autocomp.results import Status, TrialResult
from autocomp.targets import load_target

PACKAGES = ("torch", "onnxruntime", "onnx", "torch-pruning", "optuna", "ray", "numpy")
KNOWN_EARLY = ("size_mb", "download_mb", "latency_ms", "latency_ratio", "params", "macs")
SLACK = 0.1
"""A policy is stopped before retraining only if it breaks a bound by more than this fraction."""


def run_trial(bench: Bench, number: int, policy: Policy, checkpoint: Path) -> TrialResult:
    """Carry out `policy`, measure what comes of it, and leave its checkpoint in `checkpoint`.

    The same policy and seed on the same machine give the same model. What is known to break a bound
    before anything is retrained, and a loss that is not finite, stop the trial.
    """
    clock = Clock()
    metrics: dict[str, float] = {}
    skipped: list[str] = []
    status: Status = "complete"
    reason = None

    def fill(directory: Path) -> None:
        work = Work(bench.dense.compressed(), bench)
        skipped.extend(apply_(work, policy, clock))
        skipped.extend(_lower_and_measure(work, policy, directory, metrics, clock))
        write_json(directory / METRICS, metrics)
        write_card(directory, policy, metrics, skipped)

    try:
        _stop_if_hopeless(bench, policy, metrics, clock)
        write_folder(checkpoint, fill)
    except TrialStopped as stop:
        status, reason = "stopped", str(stop)
    return TrialResult(
        number=number,
        policy_id=policy.id,
        status=status,
        reason=reason,
        metrics=metrics,
        skipped=tuple(skipped),
        seconds=clock.seconds,
        seed=bench.seed,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """The versions a result depends on, by package."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _lower_and_measure(
    work: Work,
    policy: Policy,
    directory: Path,
    metrics: dict[str, float],
    clock: Clock,
    measure_quality: bool = True,
) -> tuple[str, ...]:
    """Write the model into `directory` and add what it measures to `metrics`."""
    bench, config = work.bench, work.bench.dense.config
    with clock("lower"):
        artifact = write_model(directory, bench.task, bench.target, work.compressed, policy)
        write_config(
            artifact,
            work.compressed,
            config.task,
            bench.target,
            config.steps,
            config.dense_latency_ms,
        )
        run = load_target(bench.target.kind).open(artifact, threads=bench.target.threads)
    if measure_quality:
        with clock("evaluate"):
            metrics.update(quality(bench.task, run, "dev")[0])
    with clock("measure"):
        metrics.update(cost(bench.task, work.compressed, artifact, bench.steps))
        # the dense model is its own reference
        ratio = 1.0
        if policy.steps:
            timed = latency(
                bench.task, run, bench.dense.run, bench.raw_inputs, bench.target, bench.steps
            )
            ratio = timed.ratio
        metrics["latency_ratio"] = ratio
        metrics["latency_ms"] = ratio * config.dense_latency_ms
        metrics["latency_own_ms"] = own_latency_ms(bench.task, run, bench.raw_inputs, bench.target)
    return artifact.skipped


def _stop_if_hopeless(
    bench: Bench, policy: Policy, metrics: dict[str, float], clock: Clock
) -> None:
    """Stop a policy whose size or latency, known without retraining, clearly breaks a bound."""
    bounds = [
        one
        for one in bench.objectives
        if one.metric in KNOWN_EARLY and (one.at_most or one.at_least)
    ]
    steps = tuple(step for step in policy.steps if step.kind not in ("retrain", "gamma_l1"))
    if not bounds or not steps or len(steps) == len(policy.steps):
        return
    early: dict[str, float] = {}
    with clock("probe"), tempfile.TemporaryDirectory() as folder:
        work = Work(bench.dense.compressed(), bench)
        apply_(work, Policy(steps=steps), Clock())
        _lower_and_measure(work, policy, Path(folder), early, Clock(), measure_quality=False)
    for one in bounds:
        dense = bench.dense.metrics.get(one.metric)
        excess = one.violation(early[one.metric], dense)
        if excess > SLACK:
            metrics.update(early)
            raise TrialStopped(
                f"before retraining, {one.metric} is {early[one.metric]:.4g} "
                f"and so {excess:.0%} beyond its bound"
            )
