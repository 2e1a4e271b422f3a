"""Kills a search's driver and its workers at random moments, and checks that nothing is lost.

    python benchmarks/survive_kills.py [--out results/kills.json] [--seed 0]

A search on small scenes is started; five times its driver and five times one of its workers get
SIGKILL. The same command resumes it. Every result that was ever on disk must stay as it was, and
the study must end with the number of trials that was asked for, each policy run once, and without
half-written files; and no driver may end in an error of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from autocomp.provenance import commit, machine, versions

SPACE = """
task:
  kind: captioning
  data: {kind: scenes, image_size: 32, train: 200, dev: 40, test: 40}
  model: {kind: cnn_transformer, d_model: 32, heads: 2, ffn: 64, decoder_layers: 2}
  dense: {steps: 20}
target: {kind: onnxruntime}
objectives: {cider: maximize, size_mb: minimize, latency_ms: minimize}
policy:
  steps:
    - {kind: prune_channels, layers: encoder.backbone, per: stage, ratio: {uniform: [0.0, 0.7]}}
    - {kind: drop_layers, layers: decoder.layers, keep: {int_range: [1, 2]}}
    - {kind: retrain, steps: {choice: [10, 30]}, distill: {uniform: [0.0, 0.9]}}
    - {kind: quantize, layers: "**", per: stage, bits: {choice: [32, 8, 4]}}
"""
KILLS = ["driver"] * 5 + ["worker"] * 5
LONGEST_WAIT_S = 40.0


@dataclass(frozen=True)
class Kill:
    """One SIGKILL: of whom, how many seconds after the start, and the results on disk then."""

    victim: str
    after_s: float
    results: int


def main() -> int:
    options = _options()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "scenes.yaml"
        space.write_text(SPACE)
        study = Path(folder) / "study"
        command = [
            *(sys.executable, "-m", "autocomp", "search", str(space)),
            *("--trials", str(options.trials), "--out", str(study), "--workers", "2"),
        ]
        seen: dict[str, str] = {}
        kills, ends = _kill_at_random(command, study, rng, seen)
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        lost = _check(study, seen)
        codes = [*ends, finished.returncode]
        report = _report(study, kills, lost, options.trials, codes, options.seed)
    print(json.dumps(report, indent=2))
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=2) + "\n")
    return 0 if report["passed"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=40)
    return parser.parse_args()


def _kill_at_random(
    command: list[str], study: Path, rng: random.Random, seen: dict[str, str]
) -> tuple[list[Kill], list[int]]:
    """The kills, and the exit codes of drivers that ended though nobody had killed them."""
    victims = rng.sample(KILLS, len(KILLS))
    kills: list[Kill] = []
    ends: list[int] = []
    driver = _start(command)
    for victim in victims:
        start = time.monotonic()
        wait_s = rng.uniform(1.0, LONGEST_WAIT_S)
        while time.monotonic() - start < wait_s or not _workers(driver):
            if driver.poll() is not None:
                ends.append(driver.returncode)
                driver = _start(command)
            time.sleep(0.2)
        if victim == "driver":
            driver.kill()
            driver.wait()
        else:
            rng.choice(_workers(driver)).kill()
        _check(study, seen)
        kills.append(Kill(victim, round(time.monotonic() - start, 1), len(seen)))
        print(kills[-1], file=sys.stderr)
        if victim == "driver":
            driver = _start(command)
    driver.kill()
    driver.wait()
    return kills, ends


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _workers(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The Ray actors among the driver's descendants."""
    found = []
    try:
        for process in psutil.Process(driver.pid).children(recursive=True):
            try:
                if "ray::_Actor" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
    except psutil.Error:
        return []
    return found


def _check(study: Path, seen: dict[str, str]) -> list[str]:
    """Trials whose result is gone or has changed since it was first seen; new ones are added."""
    lost = []
    for name, digest in seen.items():
        path = study / "trials" / name / "result.json"
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            lost.append(name)
    for path in sorted(study.glob("trials/*/result.json")):
        seen.setdefault(path.parent.name, hashlib.sha256(path.read_bytes()).hexdigest())
    return lost


def _report(
    study: Path, kills: list[Kill], lost: list[str], trials: int, codes: list[int], seed: int
) -> dict[str, object]:
    results = [json.loads(path.read_text()) for path in sorted(study.glob("trials/*/result.json"))]
    policies = [result["policy_id"] for result in results]
    numbers = [result["number"] for result in results]
    statuses = [result["status"] for result in results]
    once = len(set(policies)) == len(policies)
    leftovers = sorted(str(path.relative_to(study)) for path in study.rglob(".*"))
    whole = not lost and not leftovers
    return {
        "command": " ".join(["python", *sys.argv]),
        "seed": seed,
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
        "kills": [asdict(kill) for kill in kills],
        "trials_asked_for": trials,
        "trials_with_results": len(results),
        "statuses": {status: statuses.count(status) for status in sorted(set(statuses))},
        "reasons": [result["reason"] for result in results if result["reason"]],
        "results_lost_or_changed": lost,
        "every_policy_run_once": once,
        "leftovers": leftovers,
        "exit_codes_of_drivers_not_killed": codes,
        "passed": whole and once and not any(codes) and numbers == list(range(trials)),
    }


if __name__ == "__main__":
    sys.exit(main())
