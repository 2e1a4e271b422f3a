"""Runs trials side by side in Ray actors. The only module that knows Ray.

A worker builds its run function once and keeps it. Ray is started for the search and stopped with
it, in a folder of its own; a running cluster is used instead if its address is given.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autocomp.errors import StudyError, UserError
from autocomp.policy import Policy
from autocomp.results import Status, TrialResult, reason_of
from autocomp.study.runners import Run, guarded
from autocomp.study.watchdog import start_watchdog, stop_watchdog

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # an actor that asks for no GPU still sees them
    "RAY_worker_niceness": "0",  # what workers time is a result
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # a worker's death is in its trial's result, not printed
}
for _name, _value in ENVIRONMENT.items():  # Ray reads some of them when it is imported
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import cloudpickle  # noqa: E402
from ray.exceptions import (  # noqa: E402
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

ATTEMPTS = 2
OBJECT_STORE_BYTES = 100_000_000  # policies and results are all that passes through it
OUR_VARIABLES = "AUTOCOMP_"
"""What the names of those environment variables begin with that workers elsewhere need as well."""
LONGEST_TEMP = 16  # characters; a socket's path must stay under 108 with what Ray appends
REACHED_WITHIN_S = 10
CHECKED_EVERY_S = 10.0
DIED = (RayActorError, WorkerCrashedError, OutOfMemoryError)


class _Actor:
    """What lives in a worker process."""

    def __init__(self, factory: bytes, path: list[str], directory: Path | None) -> None:
        self._factory = factory
        self._path = path
        self._directory = directory

    def build(self) -> None:
        """Here, not in `__init__`, for Ray keeps the type of what a method raises."""
        sys.path.extend(folder for folder in self._path if folder not in sys.path)
        factory: Callable[[], Run] = cloudpickle.loads(self._factory)
        self._run = factory()

    def run(self, number: int, policy: Policy) -> TrialResult:
        return guarded(self._run, number, policy, self._directory)


@dataclass
class _Worker:
    """The driver's side of one actor; `started` is None while the actor is being built."""

    actor: Any = None
    built: Any = None
    answer: Any = None
    job: tuple[int, Policy] | None = None
    attempts: int = 0
    started: float | None = field(default=None)

    @property
    def awaited(self) -> Any:
        return self.built if self.started is None else self.answer


class RayRunner:
    """Runs trials in `workers` processes with `threads` OpenMP threads each.

    Without `workers` there are as many as the machines that Ray runs on have cores for.
    `factory` takes no arguments and returns the run function; it is called once in every worker and
    must be picklable (a module's function, or a functools.partial of one). A trial that takes more
    than `timeout_s` seconds is stopped; one whose worker dies is run once more on a fresh worker,
    then recorded as failed. What the factory raises is raised by `next_result`.
    """

    def __init__(
        self,
        factory: Callable[[], Run],
        *,
        workers: int | None = 1,
        threads: int = 1,
        timeout_s: float | None = None,
        directory: Path | None = None,
        address: str | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        where = None if directory is None else directory.resolve()
        self._spec = (cloudpickle.dumps(factory), sys.path, where)
        self._options = {
            "num_cpus": threads if address else 0,  # Ray started here is all ours
            "runtime_env": {
                "env_vars": {
                    **{k: v for k, v in os.environ.items() if k.startswith(OUR_VARIABLES)},
                    "OMP_NUM_THREADS": str(threads),
                    "OMP_WAIT_POLICY": "PASSIVE",  # spinning on a shared core stalls the others
                    "GOMP_SPINCOUNT": "0",
                }
            },
        }
        self.folder: str | None = None  # Ray's own, if it was started here
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._connected = not ray.is_initialized()
        if self._connected:
            with _as_before(signal.SIGTERM):
                self._connect(workers, address)
        self.capacity = _room(threads) if workers is None else workers
        self._workers = [_Worker() for _ in range(self.capacity)]

    def _connect(self, workers: int | None, address: str | None) -> None:
        logging.getLogger("ray").setLevel(logging.ERROR)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is not None:
            try:
                _check_reachable(address)
                ray.init(address=address, **quiet)
            except (OSError, ValueError) as failure:
                raise UserError(
                    f"address: must be a running Ray cluster, but got {address!r}: "
                    f"{reason_of(failure)}"
                ) from None
            return
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else kept in ~/.ray
        self.folder = _short_folder()
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=self.folder,
            **quiet,
        )
        self._watchdog = start_watchdog(self.folder)

    def submit(self, number: int, policy: Policy) -> None:
        worker = next(worker for worker in self._workers if worker.job is None)
        worker.attempts = 0
        self._start(worker, (number, policy))

    def _start(self, worker: _Worker, job: tuple[int, Policy]) -> None:
        worker.job = job
        worker.attempts += 1
        if worker.actor is None:
            worker.actor = ray.remote(_Actor).options(**self._options).remote(*self._spec)
            worker.built = worker.actor.build.remote()
            worker.started = None
        else:
            worker.started = time.monotonic()
        worker.answer = worker.actor.run.remote(*job)

    def next_result(self) -> TrialResult:
        busy = [worker for worker in self._workers if worker.job is not None]
        assert busy, "next_result needs a trial in flight"
        while True:
            by_ref = {worker.awaited: worker for worker in busy}
            done, _ = ray.wait(list(by_ref), num_returns=1, timeout=self._patience_s(busy))
            if not done:
                _check_alive()
            result = self._answer_of(by_ref[done[0]]) if done else self._stop_overdue(busy)
            if result is not None:
                return result

    def _patience_s(self, busy: list[_Worker]) -> float:
        starts = [worker.started for worker in busy if worker.started is not None]
        if self._timeout_s is None or not starts:
            return CHECKED_EVERY_S
        overdue_s = min(starts) + self._timeout_s - time.monotonic()
        return min(max(overdue_s, 0.0), CHECKED_EVERY_S)

    def _answer_of(self, worker: _Worker) -> TrialResult | None:
        """The result of a worker that has something to tell; None if its trial goes on."""
        assert worker.job is not None
        number, policy = worker.job
        try:
            value = ray.get(worker.awaited)
        except DIED as death:
            return self._after_death(worker, death)
        except RayTaskError as failure:
            cause = failure.cause if isinstance(failure.cause, Exception) else failure
            if worker.started is None:
                raise cause from None
            value = TrialResult(
                number=number, policy_id=policy.id, status="failed", reason=reason_of(cause)
            )
        if worker.started is None:
            worker.started = time.monotonic()
            return None
        worker.job = None
        assert isinstance(value, TrialResult)
        return value

    def _after_death(self, worker: _Worker, death: Exception) -> TrialResult | None:
        assert worker.job is not None
        if worker.attempts < ATTEMPTS:
            self._kill(worker)
            self._start(worker, worker.job)
            return None
        return self._give_up(worker, "failed", f"worker died twice: {_first_line(death)}")

    def _give_up(self, worker: _Worker, status: Status, reason: str) -> TrialResult:
        """End a worker with its trial; what is recorded of it."""
        assert worker.job is not None
        number, policy = worker.job
        self._kill(worker)
        worker.job = None
        return TrialResult(number=number, policy_id=policy.id, status=status, reason=reason)

    def _stop_overdue(self, busy: list[_Worker]) -> TrialResult | None:
        if self._timeout_s is None:
            return None
        for worker in busy:
            if worker.started is None or worker.job is None:
                continue
            if time.monotonic() - worker.started >= self._timeout_s:
                reason = f"took longer than timeout_s = {self._timeout_s:g}"
                return self._give_up(worker, "stopped", reason)
        return None

    def _kill(self, worker: _Worker) -> None:
        ray.kill(worker.actor)
        worker.actor = None

    def close(self) -> None:
        """End the workers, and Ray with its folder if it was started here."""
        if self._connected and ray.is_initialized():
            ray.shutdown()
        elif ray.is_initialized():
            for worker in self._workers:
                if worker.actor is not None:
                    self._kill(worker)
        if self._watchdog is not None:
            stop_watchdog(self._watchdog)
            self._watchdog = None


@contextmanager
def _as_before(number: signal.Signals) -> Iterator[None]:
    """Leave a signal's handler as it was: Ray's own prints a stack and ends the process."""
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        # other threads may not set any, and one that is not Python's cannot be set again
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(number, handler)


def _room(threads: int) -> int:
    """How many workers of `threads` threads fit on Ray's machines; one cannot span two of them."""
    cores = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return max(1, sum(int(count) // threads for count in cores))


def _check_alive() -> None:
    """`StudyError` if Ray has lost all its nodes: it would let us wait for ever."""
    if not any(node["Alive"] for node in ray.nodes()):
        raise StudyError(
            "ray: must keep running while a search does, but it died; the same command resumes"
        )


def _first_line(death: Exception) -> str:
    return str(death).partition("\n")[0].strip()


def _check_reachable(address: str) -> None:
    """Fail within seconds where nobody listens: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=REACHED_WITHIN_S).close()


def _short_folder() -> str:
    parent = tempfile.gettempdir()
    return tempfile.mkdtemp(
        prefix="autocomp-", dir=parent if len(parent) <= LONGEST_TEMP else "/tmp"
    )
