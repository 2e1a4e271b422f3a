"""Times two things against each other, so that what else the machine does falls on both alike."""

from __future__ import annotations

import gc
import getpass
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout

from autocomp.errors import UserError

Clock = Callable[[], float]
_LEAST_PAIRS = 6  # fewer have no 95 % interval of their median
_FASTER = 0.95  # of the fastest call so far: only a clearly faster one says that it still warms up
_STEADY = 3  # pairs in a row without such a call, and it is warm
_MOST_WARMUPS = 30  # pairs
_FINE_S = 1e-6  # Linux counts CPU time in nanoseconds, Windows in sixty-fourths of a second


TOLD_AFTER_S = 10.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Latency:
    """How long the candidate takes beside the reference.

    `ratio` is the median over pairs of candidate / reference, `interval` its 95 % interval and
    `ratio_p90` the 90th percentile of the same pairs: load that slows both cancels, what remains is
    how unevenly the candidate runs. `candidate_ms` and `reference_ms` are medians of single calls,
    and vary with the machine's load.
    """

    ratio: float
    ratio_p90: float
    interval: tuple[float, float]
    candidate_ms: float
    reference_ms: float
    pairs: int


@contextmanager
def machine_lock(timeout_s: float = 900.0) -> Iterator[None]:
    """Let one process of this user on this machine measure at a time.

    `UserError` if another holds the lock for longer than `timeout_s`.
    """
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    path = Path(tempfile.gettempdir()) / f"autocomp-{user}.lock"
    try:
        with _acquired(FileLock(path), timeout_s):
            yield
    except Timeout:
        raise UserError(
            f"{path}: must be free to measure, but another process held it for {timeout_s:g} s"
        ) from None


def clock_of(threads: int) -> Clock:
    """The clock for calls that compute in `threads` threads.

    One thread is timed by the CPU time it gets: that stands still while another process has the
    core, which strikes long calls more often than short ones and so would move their ratio. With
    more threads, or where the system counts CPU time coarsely, it is the time on the wall.
    """
    is_fine = time.get_clock_info("thread_time").resolution <= _FINE_S
    return time.thread_time if threads == 1 and is_fine else time.perf_counter


def _acquired(lock: FileLock, timeout_s: float) -> AcquireReturnProxy[Any]:
    """The lock, acquired; a message says so where that takes more than a moment."""
    try:
        return lock.acquire(timeout=min(TOLD_AFTER_S, timeout_s))
    except Timeout:
        log.warning("%s: another process measures; waiting for it to end", lock.lock_file)
        return lock.acquire(timeout=max(0.0, timeout_s - TOLD_AFTER_S))


def measure_ratio(
    candidate: Callable[[], object],
    reference: Callable[[], object],
    *,
    half_width: float = 0.02,
    min_pairs: int = 20,
    max_pairs: int = 300,
    max_seconds: float = 5.0,
    clock: Clock = time.perf_counter,
    wall: Clock = time.perf_counter,
) -> Latency:
    """Call both in turn, A B or B A, until the ratio is known to +- `half_width` of itself.

    Before that both are called until neither gets faster any more. Stops at `max_pairs` or after
    `max_seconds` too, though never before 6 pairs: the interval says how well the ratio is known.
    `clock` times the calls and `wall` the whole. Runs under `machine_lock` with garbage collection
    off.
    """
    with machine_lock(), _no_collection():
        warm_up(candidate, reference, max_seconds=max_seconds, clock=clock, wall=wall)
        pairs: list[tuple[float, float]] = []
        look = min_pairs
        start = wall()
        while len(pairs) < max_pairs:
            pairs.append(_timed_pair(candidate, reference, is_swapped(len(pairs)), clock))
            if len(pairs) >= _LEAST_PAIRS and wall() - start >= max_seconds:
                break
            if len(pairs) == look:
                low, high = summarise(pairs).interval
                if high - low <= half_width * (low + high):
                    break
                # each look is a chance to stop at a lucky interval: few keep it honest
                look += look // 4
    return summarise(pairs)


def warm_up(
    *calls: Callable[[], object],
    max_seconds: float,
    clock: Clock = time.perf_counter,
    wall: Clock = time.perf_counter,
) -> int:
    """Call all in turn until none gets faster any more; how many rounds that took.

    Noise sets ever fewer records, so this ends on a busy machine too: in some 8 rounds, in 30 or
    after `max_seconds` at the latest.
    """
    fastest = [math.inf] * len(calls)
    steady = rounds = 0
    start = wall()
    while steady < _STEADY and rounds < _MOST_WARMUPS and wall() - start < max_seconds:
        seconds = [_timed(call, clock) for call in calls]
        is_faster = any(now < _FASTER * best for now, best in zip(seconds, fastest, strict=True))
        steady = 0 if is_faster else steady + 1
        fastest = [min(pair) for pair in zip(seconds, fastest, strict=True)]
        rounds += 1
    return rounds


def summarise(pairs: list[tuple[float, float]]) -> Latency:
    """The latency that (candidate, reference) seconds of each pair amount to.

    What the order does to the ratio is taken out. The interval lies between two order statistics,
    so it assumes no distribution.
    """
    seconds = np.array(pairs)  # (pairs, 2)
    logs = np.log(seconds[:, 0] / seconds[:, 1])
    swapped = np.array([is_swapped(place) for place in range(len(pairs))])
    # means of what lies between the quartiles: medians would jump where examples come in two kinds
    middle = np.clip(logs, *np.quantile(logs, [0.25, 0.75]))
    effects = [middle[swapped == order].mean() for order in (False, True)]
    logs += np.where(swapped, -1, 1) * (effects[1] - effects[0]) / 2
    ratios = np.sort(np.exp(logs))
    count = len(ratios)
    rank = max(0, int((count - 1.96 * count**0.5) / 2))
    candidate_ms, reference_ms = np.median(seconds, axis=0) * 1e3
    return Latency(
        ratio=float(np.median(ratios)),
        ratio_p90=float(np.quantile(ratios, 0.9)),
        interval=(float(ratios[rank]), float(ratios[count - 1 - rank])),
        candidate_ms=float(candidate_ms),
        reference_ms=float(reference_ms),
        pairs=count,
    )


def is_swapped(place: int) -> bool:
    """Whether the reference is called first in the pair at `place`.

    Thue and Morse's order has no period: whatever examples the calls take in turn, each of them is
    timed in both orders, so that what an example costs is not taken for what an order does.
    """
    return place.bit_count() % 2 == 1


def _timed_pair(
    candidate: Callable[[], object],
    reference: Callable[[], object],
    swapped: bool,
    clock: Clock,
) -> tuple[float, float]:
    """Seconds of the candidate and of the reference, the reference called first if swapped."""
    first, second = (reference, candidate) if swapped else (candidate, reference)
    times = _timed(first, clock), _timed(second, clock)
    return (times[1], times[0]) if swapped else times


def _timed(call: Callable[[], object], clock: Clock) -> float:
    """Seconds of one call."""
    start = clock()
    call()
    return clock() - start


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
