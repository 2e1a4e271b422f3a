"""A study on disk such as a search leaves: every kind of trial, tensors, predictions, intervals."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from autocomp.fields import value_for
from autocomp.policy import Policy
from autocomp.results import DENSE_TRIAL, TrialResult
from autocomp.space.binding import bind
from autocomp.space.space import SearchSpace
from autocomp.study.store import trial_folder
from autocomp.study.study import Study
from autocomp.tensors import TENSORS, TensorRecord, TensorRecords

LAYERS = {
    "prune_width": ["decoder.layers.0.ffn.up", "decoder.layers.1.ffn.up"],
    "quantize": ["decoder.head", "decoder.layers.0.ffn.up"],
    "retrain": ["decoder"],
}
DATA = {"kind": "scenes", "train": 8, "dev": 40, "test": 8, "image_size": 32}
OBJECTIVES = {
    "cider": "maximize",
    "size_mb": "minimize",
    "latency_ms": {"direction": "minimize", "at_most": "0.85*dense"},
}
STEPS = [
    {"kind": "prune_width", "layers": "**", "per": "block", "ratio": {"uniform": [0.0, 0.9]}},
    {"kind": "retrain", "steps": {"choice": [10, 20]}, "distill": 0.5},
    {"kind": "quantize", "layers": "**", "bits": {"choice": [32, 8, 4]}},
]
TRIALS = 24
STOPPED, FAILED = 9, 12


def made_space(**task: Any) -> SearchSpace:
    document = {
        "task": {"kind": "captioning", "data": DATA, **task},
        "target": {"kind": "onnxruntime", "threads": 1},
        "objectives": OBJECTIVES,
        "policy": {"steps": STEPS},
        "search": {"sampler": "random", "trials": TRIALS},
    }
    return SearchSpace.from_dict(document)


def make_study(
    directory: Path, trials: int = TRIALS, reason: str = "ran aground", **task: Any
) -> Path:
    """A finished study; trial `FAILED` failed for `reason`, trial `STOPPED` was stopped."""
    space = made_space(**task)
    study = Study.open(directory, space, bind(space, LAYERS), command="autocomp search made.yaml")
    while len(study.results) < trials:
        following = study.next_trial()
        assert following is not None
        study.record(_result(*following, reason))
    study.close()
    return directory


def _result(number: int, policy: Policy, reason: str) -> TrialResult:
    metrics = _metrics(policy)
    status, why = "complete", None
    if number == STOPPED:
        status, why = "stopped", "the loss is not finite"
        del metrics["cider"]
    if number == FAILED:
        status, why, metrics = "failed", reason, {}
    return TrialResult(
        number=number,
        policy_id=policy.id,
        status=status,
        reason=why,
        metrics=metrics,
        seconds={"retrain": 3.0, "measure": 1.0},
        skipped=("steps.2.quantize: decoder.head: has no kernel",) if number == 3 else (),
    )


def _metrics(policy: Policy) -> dict[str, float]:
    """Quality falls and costs shrink with what is removed; retraining wins a little back."""
    kept, bits = (1.0, 1.0), 32
    quality = 0.9
    for step in policy.steps:
        if step.kind == "prune_width":
            kept = tuple(1 - value_for(f"decoder.layers.{one}", step.ratio, 0.0) for one in (0, 1))
        elif step.kind == "quantize":
            bits = value_for("decoder.head", step.bits, 32)
        else:
            quality += 0.002 * step.steps
    quality -= 0.1 * (1 - kept[0]) ** 2 + 0.5 * (1 - kept[1]) ** 2 + 0.3 / bits
    quality -= 0.15 * random.Random(policy.id).random() if policy.steps else 0.0
    width = sum(kept) / 2
    return {
        "cider": quality,
        "size_mb": 4 * width * bits / 32,
        "latency_ms": 8 * (0.4 + 0.6 * width),
        "params": 1e6 * width,
        "peak_rss_mb": 999.6 * width,
    }


def add_tensors(directory: Path) -> None:
    """A record of the tensors of every complete trial; decoder.layers.1 is gone in the last one."""
    complete = [n for n, one in Study.load(directory).results.items() if one.status == "complete"]
    for number in complete:
        width, bits = (64, 32) if number == DENSE_TRIAL else (64 - number, 8)
        names = ["encoder.conv", "decoder.layers.0.ffn.up", "decoder.layers.1.ffn.up"]
        if number == complete[-1]:
            names.pop()
        tensors = [
            one
            for name in names
            for one in (
                TensorRecord(
                    name=f"{name}.weight", shape=(width, 16), bits=bits, bytes=width * 2 * bits
                ),
                TensorRecord(name=f"{name}.bias", shape=(width,), bits=32, bytes=4 * width),
            )
        ]
        TensorRecords(tensors=tuple(tensors)).write(trial_folder(directory, number) / TENSORS)


def add_predictions(directory: Path, caption: str = "a red star") -> None:
    """What every complete trial predicted of the dev split."""
    for number, result in Study.load(directory).results.items():
        if result.status != "complete":
            continue
        rng = random.Random(number)
        count = DATA["dev"]
        content = {
            "split": "dev",
            "names": [f"dev_{index:05d}.png" for index in range(count)],
            "predictions": [f"{caption} of {number} in {index}" for index in range(count)],
            "scores": {"cider": [round(rng.random(), 6) for _ in range(count)]},
        }
        path = trial_folder(directory, number) / "predictions.json"
        path.write_text(json.dumps(content))
