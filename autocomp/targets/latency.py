"""Times two things against each other, so that what else the machine does falls on both alike."""

from __future__ import annotations

import gc
import getpass
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from autocomp.errors import UserError

_LEAST_PAIRS = 6  # fewer have no 95 % interval of their median


@dataclass(frozen=True)
class Latency:
    """How long the candidate takes beside the reference.

    `ratio` is the median over pairs of candidate / reference and `interval` its 95 % interval;
    `candidate_ms` and `reference_ms` are medians of single calls, and vary with the machine's load.
    """

    ratio: float
    candidate_ms: float
    reference_ms: float
    interval: tuple[float, float]
    pairs: int


@contextmanager
def machine_lock(timeout_s: float = 900.0) -> Iterator[None]:
    """Let one process of this user on this machine measure at a time.

    `UserError` if another holds the lock for longer than `timeout_s`.
    """
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    path = Path(tempfile.gettempdir()) / f"autocomp-{user}.lock"
    try:
        with FileLock(path, timeout=timeout_s):
            yield
    except Timeout:
        raise UserError(
            f"{path}: must be free to measure, but another process held it for {timeout_s:g} s"
        ) from None


def measure_ratio(
    candidate: Callable[[], object],
    reference: Callable[[], object],
    *,
    half_width: float = 0.03,
    min_pairs: int = 20,
    max_pairs: int = 500,
    max_seconds: float = 3.0,
    warmups: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Call both in turn, A B then B A, until the ratio is known to +- `half_width` of itself.

    Stops at `max_pairs` or after `max_seconds` too, though never before 6 pairs: the interval says
    how well the ratio is known. Runs under `machine_lock` with garbage collection off.
    """
    with machine_lock(), _no_collection():
        for _ in range(warmups):
            candidate()
            reference()
        pairs: list[tuple[float, float]] = []
        start = clock()
        while len(pairs) < max_pairs:
            pairs.append(_timed_pair(candidate, reference, len(pairs) % 2 == 1, clock))
            if len(pairs) < _LEAST_PAIRS:
                continue
            latency = summarise(pairs)
            low, high = latency.interval
            is_known = len(pairs) >= min_pairs and high - low <= 2 * half_width * latency.ratio
            if is_known or clock() - start >= max_seconds:
                break
    return summarise(pairs)


def summarise(pairs: list[tuple[float, float]]) -> Latency:
    """The latency that (candidate, reference) seconds of each pair amount to.

    The order alternates from pair to pair, and what it does to the ratio is taken out. The
    interval lies between two order statistics, so it assumes no distribution.
    """
    seconds = np.array(pairs)  # (pairs, 2)
    logs = np.log(seconds[:, 0] / seconds[:, 1])
    medians = [np.median(logs[order::2]) for order in (0, 1)]
    for order, median in enumerate(medians):
        logs[order::2] += np.mean(medians) - median
    ratios = np.sort(np.exp(logs))
    count = len(ratios)
    rank = max(0, int((count - 1.96 * count**0.5) / 2))
    candidate_ms, reference_ms = np.median(seconds, axis=0) * 1e3
    return Latency(
        ratio=float(np.median(ratios)),
        candidate_ms=float(candidate_ms),
        reference_ms=float(reference_ms),
        interval=(float(ratios[rank]), float(ratios[count - 1 - rank])),
        pairs=count,
    )


def _timed_pair(
    candidate: Callable[[], object],
    reference: Callable[[], object],
    is_swapped: bool,
    clock: Callable[[], float],
) -> tuple[float, float]:
    """Seconds of the candidate and of the reference, the reference called first if swapped."""
    first, second = (reference, candidate) if is_swapped else (candidate, reference)
    start = clock()
    first()
    middle = clock()
    second()
    end = clock()
    times = (middle - start, end - middle)
    return (times[1], times[0]) if is_swapped else times


@contextmanager
def _no_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
