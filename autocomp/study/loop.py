"""The search loop: keep the runner busy until enough trials have results."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from autocomp.results import TrialResult
from autocomp.study.front import Front
from autocomp.study.runners import Runner
from autocomp.study.study import Study


@dataclass(frozen=True)
class SearchEvent:
    """Where a search stands; sent once when it starts and after every result.

    `seconds_left` is None until this session has a result to go by. `overhead_s` is what asking,
    telling and writing took so far. `exhausted` says that the space holds no further policy.
    """

    done: int
    total: int
    front_size: int
    hypervolume: float | None
    result: TrialResult | None
    seconds_left: float | None
    overhead_s: float
    exhausted: bool


def search_loop(
    study: Study,
    runner: Runner,
    trials: int,
    on_event: Callable[[SearchEvent], None] = lambda event: None,
) -> Front:
    """Run trials until `trials` of them have results, or the space is exhausted; the front.

    Closes the runner and the study in the end. Trials in flight when it is interrupted run again,
    under their numbers, when the study is opened the next time.
    """
    started, already = time.monotonic(), len(study.results)

    def report(result: TrialResult | None) -> None:
        front, done = study.front(), len(study.results)
        pace_s = (time.monotonic() - started) / (done - already) if done > already else None
        on_event(
            SearchEvent(
                done=done,
                total=trials,
                front_size=len(front.members),
                hypervolume=front.hypervolume,
                result=result,
                seconds_left=None if pace_s is None else pace_s * max(trials - done, 0),
                overhead_s=study.overhead_s,
                exhausted=study.exhausted,
            )
        )

    try:
        report(None)
        in_flight = 0
        while True:
            while in_flight < runner.capacity and len(study.results) + in_flight < trials:
                trial = study.next_trial()
                if trial is None:
                    break
                runner.submit(*trial)
                in_flight += 1
            if not in_flight:
                return study.front()
            result = runner.next_result()
            in_flight -= 1
            study.record(result)
            report(study.results[result.number])
    finally:
        runner.close()
        study.close()
