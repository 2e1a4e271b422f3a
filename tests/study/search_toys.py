"""A small space, a function that stands for training and measuring, and studies made of them."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import Any

from autocomp.fields import value_for
from autocomp.policy import Policy, Quantize, Retrain
from autocomp.predictions import PREDICTIONS, Predictions
from autocomp.results import TrialResult
from autocomp.space.binding import BoundSpace, bind
from autocomp.space.space import SearchSpace
from autocomp.study.runners import Run
from autocomp.study.store import trial_folder
from autocomp.study.study import Study

LAYERS = {
    "prune_width": ["decoder.layers.0.ffn.up", "decoder.layers.1.ffn.up"],
    "quantize": ["decoder.head", "decoder.layers.0.ffn.up"],
    "retrain": ["decoder"],
}
OBJECTIVES = {"cider": "maximize", "size_mb": "minimize", "latency_ms": "minimize"}
STEPS = [
    {
        "kind": "prune_width",
        "layers": "**",
        "per": "block",
        "ratio": {"uniform": [0.0, 0.9]},
        "criterion": {"choice": ["l1", "l2"]},
    },
    {"kind": "retrain", "steps": {"choice": [10, 20]}, "lr": {"log_uniform": [1e-4, 1e-2]}},
    {"kind": "quantize", "layers": "**", "bits": {"choice": [32, 8, 4]}},
]
FEW_STEPS = [{"kind": "quantize", "layers": "**", "bits": {"choice": [32, 8, 4]}}]


def toy_space(
    *,
    objectives: dict[str, Any] = OBJECTIVES,
    steps: list[dict[str, Any]] = STEPS,
    **search: Any,
) -> SearchSpace:
    document = {
        "task": {"kind": "toy"},
        "target": {"kind": "toy"},
        "objectives": objectives,
        "policy": {"steps": steps},
        "search": search,
    }
    return SearchSpace.from_dict(document)


def toy_bound(space: SearchSpace) -> BoundSpace:
    return bind(space, LAYERS)


def open_toy(directory: Path, **space: Any) -> Study:
    made = toy_space(**space)
    return Study.open(directory, made, toy_bound(made))


@cache
def toy_metrics(policy: Policy) -> dict[str, float]:
    """Quality falls, size and latency shrink with every step; retraining wins some back."""
    quality, size, speed = 1.0, 1.0, 1.0
    for step in policy.steps:
        if isinstance(step, Quantize):
            bits = value_for("decoder.head", step.bits, 32)
            quality -= {32: 0.0, 8: 0.02, 4: 0.1}[bits]
            size *= bits / 32
            speed *= {32: 1.0, 8: 0.6, 4: 0.5}[bits]
        elif isinstance(step, Retrain):
            quality += 0.001 * step.steps
        else:
            ratios = [value_for(f"decoder.layers.{one}", step.ratio, 0.0) for one in (0, 1)]
            quality -= 0.2 * ratios[0] ** 2 + 0.6 * ratios[1] ** 2
            size *= 1 - sum(ratios) / 2
            speed *= 1 - sum(ratios) / 3
    return {"cider": quality, "size_mb": 10 * size, "latency_ms": 5 * speed}


def toy_run(number: int, policy: Policy) -> TrialResult:
    metrics = toy_metrics(policy)
    return TrialResult(number=number, policy_id=policy.id, status="complete", metrics=metrics)


def toy_predictions(policy: Policy, images: int = 50) -> Predictions:
    """Captions whose CIDEr averages to the policy's, up and down from image to image."""
    quality = toy_metrics(policy)["cider"]
    return Predictions(
        split="dev",
        names=tuple(f"{index}.jpg" for index in range(images)),
        predictions=("a dog",) * images,
        scores={"cider": tuple(quality + (-1) ** index * quality / 2 for index in range(images))},
    )


def predicting_run(directory: Path) -> Run:
    """`toy_run` that leaves predictions in the study's folder, as a worker does."""

    def run(number: int, policy: Policy) -> TrialResult:
        toy_predictions(policy).write(trial_folder(directory, number) / PREDICTIONS)
        return toy_run(number, policy)

    return run


def numbered_run(directory: str, fatal: dict[int, int]) -> Run:
    """A run that notes each number it is given, and ends its worker `fatal[number]` times.

    Number 100 is refused with an exception, number 200 takes for ever.
    """

    def run(number: int, policy: Policy) -> TrialResult:
        print("noise from a worker")
        note = Path(directory) / f"{number}-{time.monotonic_ns()}"
        note.touch()
        if len(list(Path(directory).glob(f"{number}-*"))) <= fatal.get(number, 0):
            os._exit(3)
        if number == 100:
            raise RuntimeError("two\nlines")
        if number == 200:
            time.sleep(600)
        metrics = {"threads": float(os.environ["OMP_NUM_THREADS"]), "pid": float(os.getpid())}
        return TrialResult(number=number, policy_id=policy.id, status="complete", metrics=metrics)

    return run


def environment_factory() -> Run:
    """A run whose metric is what the driver's environment says it is."""

    def run(number: int, policy: Policy) -> TrialResult:
        metrics = {"cider": float(os.environ["AUTOCOMP_TOY"])}
        return TrialResult(number=number, policy_id=policy.id, status="complete", metrics=metrics)

    return run


def broken_factory() -> Run:
    raise ValueError("the data is missing")


def stalling_factory() -> Run:
    """A run that completes dense and control, and never ends from trial 2 on."""

    def run(number: int, policy: Policy) -> TrialResult:
        time.sleep(0 if number < 2 else 600)
        return toy_run(number, policy)

    return run


def toy_factory() -> Run:
    return toy_run
