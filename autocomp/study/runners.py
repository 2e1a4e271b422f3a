"""Who carries out policies: the contract of a runner, and the ones that need no other process."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from autocomp.errors import TrialStopped
from autocomp.policy import Policy
from autocomp.results import TrialResult, one_line, reason_of
from autocomp.study.store import trial_folder

Run = Callable[[int, Policy], TrialResult]


class Runner(Protocol):
    """Carries out policies, up to `capacity` of them at a time.

    What a trial raises comes back as a failed result, never as an exception.
    """

    @property
    def capacity(self) -> int:
        """How many trials may be in flight."""

    def submit(self, number: int, policy: Policy) -> None:
        """Take on a trial; only when fewer than `capacity` are in flight."""

    def next_result(self) -> TrialResult:
        """Wait until one of the trials in flight is done; only when there is one."""

    def close(self) -> None:
        """Give up what is in flight and every resource; harmless when called twice."""


def guarded(run: Run, number: int, policy: Policy, directory: Path | None = None) -> TrialResult:
    """What `run` returns; what it raises as a result with a reason of one line.

    `TrialStopped` makes a stopped trial, any other exception a failed one whose traceback goes to
    trials/NNNNN/log.txt in the study `directory`. KeyboardInterrupt passes through.
    """
    try:
        return run(number, policy)
    except TrialStopped as stop:
        return TrialResult(
            number=number, policy_id=policy.id, status="stopped", reason=one_line(str(stop))
        )
    except Exception as failure:
        if directory is not None:
            append_log(directory, number, traceback.format_exc())
        return TrialResult(
            number=number, policy_id=policy.id, status="failed", reason=reason_of(failure)
        )


def append_log(directory: Path, number: int, text: str) -> None:
    """Add text to the log of a trial of the study in `directory`."""
    folder = trial_folder(directory, number)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        log.write(text)


class InProcessRunner:
    """Runs one trial at a time, here, when its result is asked for."""

    capacity = 1

    def __init__(self, run: Run, directory: Path | None = None) -> None:
        self._run = run
        self._directory = directory
        self._waiting: deque[tuple[int, Policy]] = deque()

    def submit(self, number: int, policy: Policy) -> None:
        self._waiting.append((number, policy))

    def next_result(self) -> TrialResult:
        number, policy = self._waiting.popleft()
        return guarded(self._run, number, policy, self._directory)

    def close(self) -> None:
        self._waiting.clear()


class ReplayRunner(InProcessRunner):
    """Looks results up in a recorded table, `Policy.id` -> result, to study searches quickly.

    A policy that the table lacks makes a failed trial.
    """

    def __init__(self, table: Mapping[str, TrialResult]) -> None:
        def look_up(number: int, policy: Policy) -> TrialResult:
            if policy.id not in table:
                raise LookupError(f"policy {policy.id} is not in the recorded table")
            return table[policy.id].model_copy(update={"number": number})

        super().__init__(look_up)
