"""A study: a space, its trials' results, and what they come to. One process at a time writes it.

Trials are numbered from 0 without gaps: 0 is the dense model, 1 the control (dense, retrained),
then the ladder, then whatever the sampler proposes. A new trial is written down before it runs
(journal, policy.yaml), a result before it is told (result.json, journal, front), so that after a
crash at any point opening the folder completes what was begun.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from autocomp.errors import StudyError
from autocomp.policy import Policy
from autocomp.results import CONTROL_TRIAL, DENSE_TRIAL, TrialResult, checked
from autocomp.space.binding import BoundSpace
from autocomp.space.metrics import METRICS, Direction
from autocomp.space.space import SearchSpace
from autocomp.study.comparisons import Comparisons
from autocomp.study.front import Front, Member, better_dense, directed, violations
from autocomp.study.proposals import Proposer, rungs
from autocomp.study.sessions import Session, new_session, provenance
from autocomp.study.store import StudyStore


class Study:
    """`results` and `policies` by trial number; made by `open` to search, by `load` to read."""

    def __init__(self, store: StudyStore, space: SearchSpace) -> None:
        self.space = space
        self.directory = store.directory
        self.policies: dict[int, Policy] = store.read_policies()
        self.results: dict[int, TrialResult] = store.read_results()
        self.exhausted = False
        self.overhead_s = 0.0
        self._store = store
        self._header = store.read_header()
        self._comparisons = Comparisons(store, [one.metric for one in space.objectives])
        self._front = self._whole_front()
        self._known: dict[str, int] = {}
        self._unfinished: deque[int] = deque()

    @classmethod
    def load(
        cls, directory: Path | str, metrics: Mapping[str, Direction | None] = METRICS
    ) -> Study:
        """The study in a folder, to read only; another process may be searching in it."""
        store = StudyStore(Path(directory))
        text = store.read_space()
        space = SearchSpace.from_yaml(text, str(store.directory / "space.yaml"), metrics)
        return cls(store, space)

    @classmethod
    def open(
        cls,
        directory: Path | str,
        space: SearchSpace,
        bound: BoundSpace,
        *,
        trials: int | None = None,
        first: Sequence[Mapping[str, Any]] = (),
        command: str | None = None,
    ) -> Study:
        """The study in a folder, new or resumed, locked for this process until `close`.

        `trials` is how many are planned (default: the space's), of which the ladder takes up to
        half; policies of the values in `first` come before it. `StudyError` if the folder is
        another space's, in use, or cannot be written.
        """
        store = StudyStore(Path(directory))
        store.open(space.to_yaml())
        try:
            study = cls(store, space)
            planned = space.search.trials if trials is None else trials
            study._resume(bound, [*first, *rungs(bound, space.search, planned)], command)
        except BaseException:
            store.close()
            raise
        return study

    def close(self) -> None:
        """Write down what the search cost and release the folder; harmless when called twice."""
        if self._store.is_open:
            try:
                self._write_header()
            finally:
                self._store.close()

    def _resume(
        self, bound: BoundSpace, first: Sequence[Mapping[str, Any]], command: str | None
    ) -> None:
        search = self.space.search
        self._control, self._essence = bound.control(), bound.essence
        for number, policy in self.policies.items():
            self._known.setdefault(self._essence(policy), number)
        self._proposer = Proposer(
            self._store.journal,
            bound,
            [direction for _, direction in directed(self.space.objectives)],
            sampler=search.sampler,
            seed=search.seed,
            first=first,
        )
        if DENSE_TRIAL in self.results and self.results[DENSE_TRIAL].status != "complete":
            self._store.drop_result(DENSE_TRIAL)
            del self.results[DENSE_TRIAL]
        for number in self._proposer.open_numbers:
            if number in self.results:
                self._tell(self.results[number])
            elif number not in self.policies:
                self._remember(number, self._fixed(number) or self._proposer.reproposed(number))
        self._unfinished.extend(sorted(set(self.policies) - set(self.results)))
        self._start_session(command)
        self._store.write_front(self._front)
        if CONTROL_TRIAL in self.results:
            self._drop_checkpoints(self.results)

    def _start_session(self, command: str | None) -> None:
        before = self._header.get("sessions", [])
        session = new_session(self.directory, before, command, self._proposer.seed)
        self._header = {"space_id": self.space.id, "sessions": [*before, session]}
        self._front = self._whole_front()
        self._write_header()

    def _write_header(self) -> None:
        self._header["sessions"][-1]["overhead_s"] = round(self.overhead_s, 3)
        self._header["dense"] = None if self.dense is None else {"metrics": self.dense}
        self._store.write_header(self._header)

    @property
    def sessions(self) -> list[Session]:
        """What study.json says of each session, the first one first."""
        return list(self._header.get("sessions", []))

    @property
    def dense(self) -> dict[str, float] | None:
        """The metrics of the uncompressed model, once they are known."""
        return self._metrics_of(DENSE_TRIAL)

    def _metrics_of(self, number: int) -> dict[str, float] | None:
        result = self.results.get(number)
        return result.metrics if result is not None and result.status == "complete" else None

    def trial_of(self, policy: Policy) -> int | None:
        """The trial that does what `policy` does, or will; of a study that is open."""
        first = (policy for policy in map(self._fixed, (DENSE_TRIAL, CONTROL_TRIAL)) if policy)
        fixed = {self._essence(one): number for number, one in enumerate(first)}
        return (fixed | self._known).get(self._essence(policy))

    def front(self) -> Front:
        """The front of all results so far; kept up to date, so asking costs nothing."""
        return self._front

    def front_and_others(self) -> Front:
        """The front with every other complete trial beside it, and the intervals of all."""
        others = tuple(one for one in self._members() if one not in self._front.members)
        return self._comparisons.compared(replace(self._front, others=others))

    def _whole_front(self) -> Front:
        return self._front_of(self._members())

    def _members(self) -> list[Member]:
        return [one for number in sorted(self.results) if (one := self._member(number)) is not None]

    def _front_of(self, members: list[Member]) -> Front:
        front = Front.of(
            members,
            self.space.objectives,
            self.dense,
            self._metrics_of(CONTROL_TRIAL),
            self._provenance(),
        )
        return self._comparisons.compared(front)

    def _member(self, number: int) -> Member | None:
        """The trial as a candidate for the front; a control that is the dense model is none."""
        metrics = self._metrics_of(number)
        policy = self.policies.get(number)
        if metrics is None or policy is None or self.dense is None:
            return None
        dense_policy = self.policies.get(DENSE_TRIAL)
        if number == CONTROL_TRIAL and dense_policy is not None and policy.id == dense_policy.id:
            return None
        return Member(number, policy, metrics)

    def _provenance(self) -> dict[str, Any]:
        return {
            "seed": self.space.search.seed,
            "sampler": self.space.search.sampler,
            "trials": len(self.results),
            "space_id": self.space.id,
            **provenance(self._header.get("sessions", [])),
        }

    def next_trial(self) -> tuple[int, Policy] | None:
        """The next trial to run, written down: one that was interrupted, or a new one.

        None while the dense model's result is awaited, on which all bounds depend, and when the
        space is exhausted.
        """
        with self._timed():
            if self._unfinished:
                number = self._unfinished.popleft()
                if number in (DENSE_TRIAL, CONTROL_TRIAL):
                    self._proposer.add_empty(number)
                return number, self.policies[number]
            if DENSE_TRIAL in self.policies and self.dense is None:
                return None
            return self._new_trial()

    def _new_trial(self) -> tuple[int, Policy] | None:
        number = max(self.policies, default=-1) + 1
        policy = self._fixed(number)
        if policy is not None:
            self._proposer.add_empty(number)
            self._remember(number, policy)
            if number == CONTROL_TRIAL and policy.id == self.policies[DENSE_TRIAL].id:
                self._record_same_control()
                return self._new_trial()
            return number, policy
        policy = self._proposer.propose(number, self._known)
        if policy is None:
            self.exhausted = True
            return None
        self._remember(number, policy)
        return number, policy

    def _fixed(self, number: int) -> Policy | None:
        return {DENSE_TRIAL: Policy(), CONTROL_TRIAL: self._control}.get(number)

    def _remember(self, number: int, policy: Policy) -> None:
        self._store.write_policy(number, policy)
        self.policies[number] = policy
        self._known.setdefault(self._essence(policy), number)

    def _record_same_control(self) -> None:
        """Without a retrain step the control is the dense model: its result holds for both."""
        reason = "the space has no retrain step: the control is the dense model"
        dense = self.results[DENSE_TRIAL]
        predictions = self._store.read_predictions(DENSE_TRIAL)
        if predictions is not None:
            self._store.write_predictions(CONTROL_TRIAL, predictions)
        self._record(dense.model_copy(update={"number": CONTROL_TRIAL, "reason": reason}))

    def record(self, result: TrialResult) -> None:
        """Keep a result: result.json, the sampler, the front, then what is off it is cleaned up.

        A complete result that lacks an objective, or has a metric that is not finite, becomes a
        failed one.
        `StudyError` if it is the dense model's and not complete, for nothing can follow.
        """
        with self._timed():
            assert result.policy_id == self.policies[result.number].id
            wanted = [one.metric for one in self.space.objectives]
            self._record(checked(result, wanted, self.space.search.seed))
        final = self.results[result.number]
        if result.number == DENSE_TRIAL and final.status != "complete":
            raise StudyError(
                f"{self.directory}: the dense model (trial 0) must complete, but it "
                f"{'was stopped' if final.status == 'stopped' else 'failed'}: {final.reason}; "
                "see trials/00000/log.txt"
            )

    def _record(self, result: TrialResult) -> None:
        if result.status != "complete":  # it may have predicted before it failed, or was killed
            self._store.drop_predictions(result.number)
        self._store.write_result(result)
        self.results[result.number] = result
        self._tell(result)
        before = [member.trial for member in self._front.members]
        new = self._member(result.number)
        if result.number in (DENSE_TRIAL, CONTROL_TRIAL):
            # they move the bounds, so a trial that was beaten may be the best that meets them
            self._front = self._whole_front()
            before = list(self.results)
        else:
            self._front = self._front_of([*self._front.members, *([new] if new else [])])
        self._store.write_front(self._front)
        if CONTROL_TRIAL in self.results:
            self._drop_checkpoints([*before, result.number])
        if result.number == DENSE_TRIAL:
            self._write_header()

    def _tell(self, result: TrialResult) -> None:
        steered = directed(self.space.objectives)
        values = [result.metrics[metric] for metric, _ in steered if metric in result.metrics]
        broken = {}
        if self.dense is not None:
            reference = better_dense(
                self.dense, self._metrics_of(CONTROL_TRIAL), self.space.objectives
            )
            broken = violations(result.metrics, self.space.objectives, reference)
        self._proposer.tell(result, values, broken)

    def _drop_checkpoints(self, numbers: Mapping[int, Any] | list[int]) -> None:
        kept = {DENSE_TRIAL, CONTROL_TRIAL, *(member.trial for member in self._front.members)}
        for number in numbers:
            if number not in kept:
                self._store.drop_checkpoint(number)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.overhead_s += time.monotonic() - start
