from __future__ import annotations

import gc
import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from autocomp.errors import UserError
from autocomp.targets import latency
from autocomp.targets.latency import clock_of, machine_lock, measure_ratio, summarise, warm_up


class Machine:
    """A clock that calls move forward, as slow and as noisy as a test wants it."""

    def __init__(self, noise: float = 0.0, first_call_cost: float = 0.0, seed: int = 0) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.noise = np.random.default_rng(seed).lognormal(0.0, noise, 10_000)
        self.first_call_cost = first_call_cost

    def clock(self) -> float:
        return self.now

    def task(self, name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            late = self.first_call_cost if len(self.calls) % 2 == 0 else 0.0
            self.now += (seconds + late) * self.noise[len(self.calls) // 2]
            self.calls.append(name)

        return call


def test_orders_alternate_after_the_warm_up() -> None:
    machine = Machine()
    measure_ratio(
        machine.task("A", 0.02), machine.task("B", 0.01), max_pairs=3, clock=machine.clock
    )
    assert "".join(machine.calls) == 4 * "AB" + "AB" + "BA" + "BA"


@pytest.mark.parametrize(
    ("costs", "rounds"),
    [
        pytest.param([1.0] * 9, 4, id="warm from the start"),
        pytest.param([9.0, 5.0, 3.0, 2.0, 1.0, *[1.0] * 9], 8, id="ever faster"),
        pytest.param([9.0, 9.0, 9.0, 1.0, *[1.0] * 9], 7, id="a late start"),
        pytest.param([1.0, 0.97, 0.96, 0.98, 0.97], 4, id="noise"),
        pytest.param([0.9**n for n in range(99)], 30, id="without end"),
    ],
)
@pytest.mark.parametrize("slower", [0, 1])
def test_warm_up_ends_when_neither_gets_faster(
    costs: list[float], rounds: int, slower: int
) -> None:
    now, cost = [0.0], iter(costs)

    def changing() -> None:
        now[0] += next(cost)

    def steady() -> None:
        now[0] += 0.1

    calls = (changing, steady) if slower else (steady, changing)
    assert warm_up(*calls, max_seconds=1e9, clock=lambda: now[0], wall=lambda: now[0]) == rounds


def test_warm_up_ends_on_a_noisy_machine() -> None:
    rounds = []
    for seed in range(50):
        machine = Machine(noise=0.3, seed=seed)
        calls = machine.task("A", 0.02), machine.task("B", 0.01)
        rounds.append(warm_up(*calls, max_seconds=1e9, clock=machine.clock, wall=machine.clock))
    assert np.median(rounds) <= 10


def test_slow_calls_are_warmed_up_once() -> None:
    machine = Machine()
    assert (
        warm_up(machine.task("A", 9.0), max_seconds=5.0, clock=machine.clock, wall=machine.clock)
        == 1
    )


def test_load_that_falls_on_both_leaves_the_ratio_alone() -> None:
    machine = Machine(noise=0.5)
    found = measure_ratio(
        machine.task("A", 0.02), machine.task("B", 0.01), clock=machine.clock, wall=machine.clock
    )
    assert found.ratio == pytest.approx(2.0)
    assert found.interval == pytest.approx((2.0, 2.0))
    assert found.pairs == 20
    assert found.ratio_p90 == pytest.approx(2.0)
    assert found.candidate_ms == pytest.approx(2 * found.reference_ms, rel=0.3)


def test_what_going_first_costs_is_taken_out() -> None:
    machine = Machine(first_call_cost=0.002)
    found = measure_ratio(
        machine.task("A", 0.01), machine.task("B", 0.01), clock=machine.clock, wall=machine.clock
    )
    assert found.ratio == pytest.approx(1.0)


def test_what_an_example_costs_is_no_cost_of_the_order() -> None:
    # two photos by turns: the candidate is quicker than dense on one, and slower on the other
    now, calls = [0.0], itertools.count()

    def candidate() -> None:
        now[0] += 0.5 if next(calls) % 2 else 2.0

    def reference() -> None:
        now[0] += 1.0

    found = measure_ratio(
        candidate, reference, max_seconds=1e9, clock=lambda: now[0], wall=lambda: now[0]
    )
    assert found.interval == pytest.approx((0.5, 2.0))
    assert found.ratio_p90 == pytest.approx(2.0)
    assert found.pairs == 300  # no number of pairs makes them one


def test_noise_is_measured_until_the_ratio_is_known() -> None:
    rng = np.random.default_rng(0)
    now = [0.0]

    def noisy() -> None:
        now[0] += 0.01 * float(rng.lognormal(0.0, 0.2))

    found = measure_ratio(
        noisy, noisy, half_width=0.06, max_seconds=1e9, clock=lambda: now[0], wall=lambda: now[0]
    )
    low, high = found.interval
    assert 20 < found.pairs < 300
    assert high - low <= 0.12 * 1.01 * found.ratio
    assert low <= 1.0 <= high


def test_slow_calls_stop_after_the_time_given_but_not_before_six_pairs() -> None:
    machine = Machine()
    found = measure_ratio(
        machine.task("A", 2.0), machine.task("B", 1.0), clock=machine.clock, wall=machine.clock
    )
    assert found.pairs == 6
    assert found.ratio == pytest.approx(2.0)


def test_real_loops_come_out_near_their_ratio() -> None:
    found = measure_ratio(lambda: sum(range(40_000)), lambda: sum(range(20_000)))
    assert 1.4 < found.ratio < 2.8
    assert found.interval[0] <= found.ratio <= found.interval[1]


def test_the_interval_covers_the_true_ratio_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        noise = rng.lognormal(0.0, 0.1, (25, 2))
        low, high = summarise([(2 * a, b) for a, b in noise]).interval
        covered += low <= 2.0 <= high
    assert covered >= 0.9 * 300


def test_p90_is_of_the_candidates_own_unevenness() -> None:
    # one call of five takes half as long again
    pairs = [(3.0 if number % 5 == 0 else 2.0, 1.0) for number in range(100)]
    found = summarise(pairs)
    assert found.ratio == pytest.approx(2.0)
    assert found.ratio_p90 == pytest.approx(3.0)
    # hiccups of the reference are no fault of the candidate
    found = summarise([(b, a) for a, b in pairs])
    assert found.ratio_p90 == pytest.approx(0.5)


def test_garbage_is_collected_again_afterwards() -> None:
    seen: list[bool] = []
    measure_ratio(lambda: seen.append(gc.isenabled()), lambda: None, max_pairs=6)
    assert len(seen) > 6
    assert seen == [False] * len(seen)
    assert gc.isenabled()


def test_only_one_measures_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(latency.tempfile, "gettempdir", lambda: str(tmp_path))
    with machine_lock():
        (path,) = tmp_path.glob("autocomp-*.lock")
    late = pytest.raises(UserError, match=r"another process held it for 0\.01 s")
    with FileLock(path), late, machine_lock(timeout_s=0.01):
        pass


def test_one_thread_is_timed_by_the_time_it_computes() -> None:
    def wait() -> None:
        time.sleep(0.02)

    def compute() -> None:
        sum(range(200_000))

    on_the_wall, computing = (
        measure_ratio(wait, compute, clock=clock_of(threads), max_pairs=6).ratio
        for threads in (2, 1)
    )
    assert computing < 0.5 * on_the_wall


HOLDER = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[1]
from autocomp.targets import latency
from autocomp.targets.latency import machine_lock
for _ in range(int(sys.argv[2])):
    with machine_lock():
        print(time.monotonic(), flush=True)
        time.sleep(float(sys.argv[3]))
        print(time.monotonic(), flush=True)
"""


def hold(folder: Path, times: int, seconds: float) -> subprocess.Popen[str]:
    """A process that takes the lock `times` times, and prints when it gets it and gives it back."""
    command = [sys.executable, "-c", HOLDER, str(folder), str(times), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_measure_one_after_the_other(tmp_path: Path) -> None:
    holders = [hold(tmp_path, 4, 0.02) for _ in range(3)]
    held: list[tuple[float, float]] = []
    for holder in holders:
        times = [float(line) for line in holder.communicate()[0].split()]
        held += zip(times[::2], times[1::2], strict=True)
    held.sort()
    assert len(held) == 12
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(held))


def test_a_process_killed_while_it_measures_lets_the_next_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(latency.tempfile, "gettempdir", lambda: str(tmp_path))
    with hold(tmp_path, 1, 600) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(UserError, match="another process held it"), machine_lock(0.01):
            pass
        holder.kill()
        with machine_lock(timeout_s=10):
            assert holder.wait() == -signal.SIGKILL


def test_who_waits_for_the_lock_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(latency, "TOLD_AFTER_S", 0.05)
    with machine_lock(), pytest.raises(UserError, match="held it for"), machine_lock(0.1):
        pass
    assert "another process measures; waiting" in caplog.text
