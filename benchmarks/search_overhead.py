"""Says where the time of a search went: training, evaluating, measuring, and all the rest.

    python benchmarks/search_overhead.py STUDY --workers 2 [--out FILE.json]

A session lasts until its last result came back: the first from when the first trial was handed out
(the dense model is there by then), others from when the search was started again. That time, once
for each worker, is all there was to spend. A trial's record says what it spent on each of its
steps, and what no trial accounts for went between them: starting, asking, saving, waiting. Trials
that a session left unfinished count until its end as cut short, and workers that wait for the last
ones of the search as idle: no trial is left for them. The exit code is 1 if more than 5 % went on
anything but training, evaluating, measuring and those two.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import optuna

from autocomp.provenance import commit, machine, versions
from autocomp.study.journal import open_storage
from autocomp.study.proposals import NUMBER, STUDY_NAME
from autocomp.study.study import Study

MOST = 0.05
CUT_SHORT, IDLE, BETWEEN = "cut short", "idle at the end", "between trials"
WANTED = ("retrain", "evaluate", "measure", CUT_SHORT, IDLE)


@dataclass(frozen=True)
class Session:
    """Its ends, which trials ended in it, and when those began that it left unfinished."""

    start: datetime
    end: datetime
    finished: tuple[int, ...]
    spans: tuple[tuple[datetime, datetime], ...]
    unfinished: tuple[datetime, ...]

    @property
    def seconds(self) -> float:
        return (self.end - self.start).total_seconds()

    def idle_s(self, workers: int) -> float:
        """How long workers waited in all after a session that left no trial began its last one."""
        if self.unfinished:
            return 0.0
        last = max(begin for begin, _ in self.spans)
        busy = sum(
            (end - max(begin, last)).total_seconds() for begin, end in self.spans if end > last
        )
        return workers * (self.end - last).total_seconds() - busy


def main() -> int:
    options = _options()
    study = Study.load(options.study)
    spent: defaultdict[str, float] = defaultdict(float)
    there_was = 0.0
    for session in _sessions(study, options.study / "journal.log"):
        there_was += options.workers * session.seconds
        for number in session.finished:
            for stage, seconds in study.results[number].seconds.items():
                spent[stage] += seconds
        for began in session.unfinished:
            cut = session.end - max(began, session.start)
            spent[CUT_SHORT] += cut.total_seconds()
        spent[IDLE] += session.idle_s(options.workers)
    spent[BETWEEN] = there_was - sum(spent.values())
    rest = sum(seconds for name, seconds in spent.items() if name not in WANTED)
    rows = [
        *sorted(spent.items(), key=lambda one: -one[1]),
        ("the rest", rest),
    ]
    for name, seconds in rows:
        print(f"{name:<40}{seconds / 60:>8.1f} min{seconds / there_was:>8.1%}")
    if options.out:
        report = {
            "command": " ".join(["python", *sys.argv]),
            "seed": study.sessions[0]["seed"],
            "commit": commit(),
            "versions": versions(),
            "machine": machine(),
            "minutes": {name: round(seconds / 60, 2) for name, seconds in rows},
            "shares": {name: round(seconds / there_was, 4) for name, seconds in rows},
        }
        options.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if rest <= MOST * there_was else 1


def _options() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _sessions(study: Study, journal: Path) -> Iterator[Session]:
    loaded = optuna.load_study(study_name=STUDY_NAME, storage=open_storage(journal))
    trials = [one for one in loaded.get_trials(deepcopy=False) if NUMBER in one.user_attrs]
    began = {
        one.user_attrs[NUMBER]: one.datetime_start.astimezone()
        for one in trials
        if one.datetime_start
    }
    ended = {
        one.user_attrs[NUMBER]: one.datetime_complete.astimezone()
        for one in trials
        if one.datetime_complete
    }
    starts = [datetime.fromisoformat(one["started"]) for one in study.sessions]
    never = datetime.max.replace(tzinfo=starts[0].tzinfo)
    starts[0] = min(began.values())
    for start, stop in pairwise([*starts, never]):
        finished = {number: end for number, end in ended.items() if start < end < stop}
        if not finished:
            continue
        end = max(finished.values())
        late = [one for number, one in began.items() if one < end < ended.get(number, never)]
        spans = tuple((began[number], done) for number, done in finished.items())
        yield Session(start, end, tuple(finished), spans, tuple(late))


if __name__ == "__main__":
    sys.exit(main())
