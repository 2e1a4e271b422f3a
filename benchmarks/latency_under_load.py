"""Measures latency ratios with the machine idle and with its other cores fully loaded.

    python benchmarks/latency_under_load.py DENSE CKPT CKPT CKPT [--rounds 5] [--out FILE.json]

In each round every checkpoint is timed beside DENSE twice: once as the machine is, once while a
process of its own multiplies matrices on each core but one. What is compared is the median over
rounds of either; a ratio that moves by more than 10 % is named, and the exit code is 1. `others`
says how busy other processes kept the cores meanwhile: only near 0 % was the machine idle.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read when torch loads: its threads must not spin

import psutil  # noqa: E402

from autocomp.checkpoint.folder import Checkpoint, open_checkpoint  # noqa: E402
from autocomp.provenance import commit, machine, versions  # noqa: E402
from autocomp.targets import TargetSettings  # noqa: E402
from autocomp.timing import TIMED_EXAMPLES, Inference, time_beside  # noqa: E402

TOLERANCE = 0.1
IDLE, LOADED = "idle", "loaded"
LOADING_S = 1.0
"""CPU seconds after which a busy process has loaded numpy and multiplies."""
BUSY = "import numpy as np; a = np.ones((512, 512), np.float32)\nwhile True: a @ a"


def main() -> int:
    options = _options()
    dense = open_checkpoint(options.dense)
    opened = {str(path): open_checkpoint(path) for path in options.checkpoints}
    measured: list[dict[str, Any]] = []
    for number in range(options.rounds):
        # which comes first changes, so that a drift of the machine falls on both
        for load in (IDLE, LOADED) if number % 2 == 0 else (LOADED, IDLE):
            with _busy(_other_cores() if load == LOADED else 0) as processes:
                for name, checkpoint in opened.items():
                    found = _measure(checkpoint, dense, processes)
                    measured.append({"checkpoint": name, "load": load, "round": number, **found})
                    print(measured[-1], file=sys.stderr)
    report = _report(measured, options.rounds)
    _print(report["checkpoints"])
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if report["passed"] else 1


def _options() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dense", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _other_cores() -> int:
    return max(1, len(os.sched_getaffinity(0)) - 1)


@contextmanager
def _busy(count: int) -> Iterator[list[psutil.Process]]:
    """`count` processes that each keep a core fully busy, as long as it lasts."""
    started = [psutil.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        for process in started:
            while _cpu_seconds([process]) < LOADING_S:
                assert process.poll() is None, "the load must not end by itself"
                time.sleep(0.1)
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def _measure(
    checkpoint: Checkpoint, dense: Checkpoint, processes: list[psutil.Process]
) -> dict[str, float]:
    """The ratio at this moment, and the share of all cores that went to other processes."""
    raw, steps = dense.task.raw_inputs("dev", TIMED_EXAMPLES), dense.config.steps
    candidate, reference = (
        Inference(one.task, one.run, raw, TargetSettings(), steps) for one in (checkpoint, dense)
    )
    ours = [psutil.Process(), *processes]
    start, busy, own = time.monotonic(), _machine_seconds(), _cpu_seconds(ours)
    latency = time_beside(candidate, reference).latency
    spent = _machine_seconds() - busy - (_cpu_seconds(ours) - own)
    return {
        "ratio": latency.ratio,
        "ratio_low": latency.interval[0],
        "ratio_high": latency.interval[1],
        "ms": latency.candidate_ms,
        "dense_ms": latency.reference_ms,
        "pairs": latency.pairs,
        "others": max(0.0, spent / (time.monotonic() - start) / (psutil.cpu_count() or 1)),
    }


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(one.user + one.system for one in times))


def _machine_seconds() -> float:
    """CPU seconds all processes of the machine have had so far."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def _report(measured: list[dict[str, Any]], rounds: int) -> dict[str, Any]:
    found = []
    for name in dict.fromkeys(one["checkpoint"] for one in measured):
        own = [one for one in measured if one["checkpoint"] == name]
        row: dict[str, Any] = {"checkpoint": name}
        for load in (IDLE, LOADED):
            at = [one for one in own if one["load"] == load]
            for key in ("ratio", "ms", "dense_ms", "others"):
                row[f"{key}_{load}"] = median(one[key] for one in at)
        row["deviation"] = row["ratio_loaded"] / row["ratio_idle"] - 1
        found.append(row)
    return {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
        "busy_processes": _other_cores(),
        "rounds": rounds,
        "tolerance": TOLERANCE,
        "checkpoints": found,
        "passed": all(abs(row["deviation"]) <= TOLERANCE for row in found),
        "measured": measured,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    print(f"{'ratio, ms, other processes':40}  {IDLE:>22}  {LOADED:>22}  deviation")
    for row in rows:
        cells = [
            f"{row[f'ratio_{load}']:.3f} {row[f'ms_{load}']:6.2f} ms {row[f'others_{load}']:6.0%}"
            for load in (IDLE, LOADED)
        ]
        print(f"{row['checkpoint'][-40:]:40}  {'  '.join(cells)}  {row['deviation']:+9.1%}")


if __name__ == "__main__":
    sys.exit(main())
