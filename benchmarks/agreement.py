"""Says on how many images compressed models predict what their dense model does.

    python benchmarks/agreement.py STUDY OUT.json [--all] [--trust]

Each policy of the finished study in the folder STUDY that holds numbers in fixed point (with --all:
each policy) is carried out on the study's dense model, and both artefacts predict all of dev and
test in ONNX Runtime. They agree on an image if the task says the same of both predictions: the same
likeliest class, the same caption.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autocomp.apply import apply_
from autocomp.bench import Bench, open_bench
from autocomp.checkpoint.folder import write_model
from autocomp.clock import Clock
from autocomp.data.split import SplitName
from autocomp.measure import quality
from autocomp.policy import Policy
from autocomp.provenance import commit, machine, versions
from autocomp.study.study import Study
from autocomp.targets import load_target
from autocomp.tasks.base import Run, Task
from autocomp.titles import in_short
from autocomp.trust import trusting
from autocomp.words import describe
from autocomp.work import Work

HELD_OUT: tuple[SplitName, ...] = ("dev", "test")


@dataclass(frozen=True)
class Answers:
    """What a model says of each example of a split, and its scores (N,) by metric."""

    said: list[str]
    scores: dict[str, np.ndarray]


def main() -> int:
    options = _options()
    with trusting(options.trust):
        study = Study.load(options.study)
        bench = open_bench(study.space, study.directory)
        torch.set_num_threads(bench.target.threads)
        dense = _answers(bench.task, bench.dense.run)
        rows = []
        for trial, policy in _chosen(study, options.all).items():
            rows.append(
                {"trial": trial, "policy": describe(policy), **_beside(bench, policy, dense)}
            )
            print(f"{trial:5} {_told(rows[-1])}  {in_short(policy)}", file=sys.stderr)
    report = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
        "seed": bench.seed,
        "dense": _means(dense, dense),
        "policies": rows,
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _options() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--all", action="store_true", help="every policy, not fixed point alone")
    parser.add_argument("--trust", action="store_true", help="run the code of a task of your own")
    return parser.parse_args()


def _chosen(study: Study, every: bool) -> dict[int, Policy]:
    """The complete trials' policies, each once, by the first trial that has it."""
    found: dict[str, int] = {}
    for trial, result in sorted(study.results.items()):
        kinds = {step.kind for step in study.policies[trial].steps}
        if result.status == "complete" and (every or "fixed_point" in kinds):
            found.setdefault(result.policy_id, trial)
    return {trial: study.policies[trial] for trial in found.values()}


def _beside(bench: Bench, policy: Policy, dense: dict[str, Answers]) -> dict[str, Any]:
    """How the policy's artefact compares with the dense one, by split and over both."""
    work = Work(bench.dense.compressed(), bench)
    skipped = apply_(work, policy, Clock())
    with tempfile.TemporaryDirectory() as folder:
        artifact = write_model(Path(folder), work.task, bench.target, work.compressed, policy)
        run = load_target(bench.target.kind).open(artifact, threads=bench.target.threads)
        own = _answers(work.task, run)
    return {**_means(own, dense), "skipped": [*skipped, *artifact.skipped]}


def _answers(task: Task, run: Run) -> dict[str, Answers]:
    """By split, and of both together."""
    found: dict[str, Answers] = {}
    for split in HELD_OUT:
        _, predictions = quality(task, run, split)
        said = [task.said(one) for one in predictions]
        found[split] = Answers(said, task.per_example(predictions, split))
    dev, test = found.values()
    scores = {name: np.concatenate([dev.scores[name], test.scores[name]]) for name in dev.scores}
    return {**found, "both": Answers([*dev.said, *test.said], scores)}


def _means(own: dict[str, Answers], dense: dict[str, Answers]) -> dict[str, Any]:
    """The share of the examples on which both say the same, and the mean of each score."""
    return {
        split: {
            "examples": len(one.said),
            "agreement": float(np.mean(np.array(one.said) == np.array(dense[split].said))),
            **{name: float(each.mean()) for name, each in one.scores.items()},
        }
        for split, one in own.items()
    }


def _told(row: dict[str, Any]) -> str:
    return "  ".join(f"{split} {row[split]['agreement']:6.1%}" for split in (*HELD_OUT, "both"))


if __name__ == "__main__":
    sys.exit(main())
