from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from autocomp.errors import UserError
from autocomp.targets import latency
from autocomp.targets.latency import machine_lock, measure_ratio, summarise


class Machine:
    """A clock that calls move forward, as slow and as noisy as a test wants it."""

    def __init__(self, noise: float = 0.0, first_call_cost: float = 0.0) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.noise = np.random.default_rng(0).lognormal(0.0, noise, 10_000)
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
        machine.task("A", 0.02),
        machine.task("B", 0.01),
        warmups=1,
        max_pairs=3,
        clock=machine.clock,
    )
    assert "".join(machine.calls) == "AB" + "AB" + "BA" + "AB"


def test_load_that_falls_on_both_leaves_the_ratio_alone() -> None:
    machine = Machine(noise=0.5)
    found = measure_ratio(machine.task("A", 0.02), machine.task("B", 0.01), clock=machine.clock)
    assert found.ratio == pytest.approx(2.0)
    assert found.interval == pytest.approx((2.0, 2.0))
    assert found.pairs == 20
    assert found.candidate_ms == pytest.approx(2 * found.reference_ms, rel=0.3)


def test_what_going_first_costs_is_taken_out() -> None:
    machine = Machine(first_call_cost=0.002)
    found = measure_ratio(machine.task("A", 0.01), machine.task("B", 0.01), clock=machine.clock)
    assert found.ratio == pytest.approx(1.0)


def test_noise_is_measured_until_the_ratio_is_known() -> None:
    rng = np.random.default_rng(0)
    now = [0.0]

    def noisy() -> None:
        now[0] += 0.01 * float(rng.lognormal(0.0, 0.2))

    found = measure_ratio(noisy, noisy, half_width=0.05, max_seconds=1e9, clock=lambda: now[0])
    low, high = found.interval
    assert 20 < found.pairs < 500
    assert high - low <= 0.1 * found.ratio
    assert low <= 1.0 <= high


def test_slow_calls_stop_after_the_time_given_but_not_before_six_pairs() -> None:
    machine = Machine()
    found = measure_ratio(machine.task("A", 2.0), machine.task("B", 1.0), clock=machine.clock)
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


def test_garbage_is_collected_again_afterwards() -> None:
    seen: list[bool] = []
    measure_ratio(lambda: seen.append(gc.isenabled()), lambda: None, max_pairs=6)
    assert seen == [False] * len(seen)
    assert gc.isenabled()


def test_only_one_measures_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(latency.tempfile, "gettempdir", lambda: str(tmp_path))
    with machine_lock():
        (path,) = tmp_path.glob("autocomp-*.lock")
    late = pytest.raises(UserError, match=r"another process held it for 0\.01 s")
    with FileLock(path), late, machine_lock(timeout_s=0.01):
        pass
