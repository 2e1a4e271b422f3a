"""Which policy to try next: those given, then Optuna's, asked and told by this process alone."""

from __future__ import annotations

import random
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from autocomp.errors import PolicyError
from autocomp.policy import Policy
from autocomp.results import TrialResult
from autocomp.space.binding import BoundSpace
from autocomp.space.domains import Domain
from autocomp.space.metrics import Direction
from autocomp.space.space import SearchSettings
from autocomp.study.samplers import make_sampler, suggest

LONGEST_LADDER = 15
STUDY_NAME = "autocomp"
NUMBER = "trial"
SAMPLED_TRIES = 10
DRAWN_TRIES = 2000
TAKE_EMPTY_TRIALS = ("tpe", "random")
"""Samplers that bear trials without parameters; the others search what all trials share."""

STATES = {
    "complete": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def rungs(bound: BoundSpace, settings: SearchSettings, trials: int) -> list[dict[str, Any]]:
    """The values of the ladder's policies: up to half of `trials`, but for dense and control."""
    count = min(LONGEST_LADDER, max(trials - 2, 0) // 2)
    return bound.ladder(count) if settings.ladder else []


class Proposer:
    """Proposes policies and learns from their results; every Optuna trial is kept in `journal`.

    Those of the values in `first` come before any that the sampler draws.
    Only one process may hold the journal. An Optuna trial bears our number as user attribute
    `trial`; one that led to no run of its own is FAIL and says why (`duplicate_of`, `invalid`,
    `interrupted`). `open_numbers` are those asked for and not told, now or before a crash.
    """

    def __init__(
        self,
        journal: Path,
        bound: BoundSpace,
        directions: Sequence[Direction],
        *,
        sampler: str,
        seed: int,
        first: Sequence[Mapping[str, Any]],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._bound = bound
        self._takes_empty = sampler in TAKE_EMPTY_TRIALS
        self._first = deque(first)
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name=STUDY_NAME,
            directions=list(directions),
            load_if_exists=True,
        )
        trials = self._study.get_trials(deepcopy=False)
        self.seed = seed + len(trials)  # else a resumed search would draw the same values again
        self._study.sampler = make_sampler(sampler, self.seed)
        self._rng = random.Random(self.seed)
        self._open: dict[int, optuna.Trial] = {}
        self._reopen(trials)

    def _reopen(self, trials: Sequence[optuna.trial.FrozenTrial]) -> None:
        for frozen in trials:
            if frozen.state is TrialState.WAITING:
                _give_up(self._study, self._study.ask(), "interrupted", True)
            elif frozen.state is TrialState.RUNNING:
                trial = optuna.Trial(self._study, frozen._trial_id)
                if NUMBER in frozen.user_attrs:
                    self._open[frozen.user_attrs[NUMBER]] = trial
                else:
                    _give_up(self._study, trial, "interrupted", True)

    @property
    def open_numbers(self) -> list[int]:
        return sorted(self._open)

    def reproposed(self, number: int) -> Policy:
        """The policy that was proposed for an open number."""
        return self._bound.sample(suggest(self._open[number]))

    def add_empty(self, number: int) -> None:
        """Show a trial that is no point of the space: the dense model or the control."""
        if self._takes_empty and number not in self._open:
            self._begin(number, self._study.ask())

    def propose(self, number: int, known: Mapping[str, int]) -> Policy | None:
        """A policy that does what none of the `known` does, for trial `number`.

        `known` maps their essence (see `BoundSpace.essence`) to their trial.

        None if none could be found: the space counts as exhausted.
        """
        while self._first:
            values = self._first.popleft()
            if self._bound.essence(self._bound.policy(values)) not in known:
                return self._given(number, values)
        for _ in range(SAMPLED_TRIES):
            trial = self._study.ask()
            policy = self._sampled(trial, known)
            if policy is not None:
                self._begin(number, trial)
                return policy
        for _ in range(DRAWN_TRIES):
            drawn = self._drawn(known)
            if drawn is not None:
                return self._given(number, drawn)
        return None

    def _given(self, number: int, values: Mapping[str, Any]) -> Policy:
        self._study.enqueue_trial(dict(values))
        trial = self._study.ask()
        policy = self._bound.sample(suggest(trial))
        self._begin(number, trial)
        return policy

    def _sampled(self, trial: optuna.Trial, known: Mapping[str, int]) -> Policy | None:
        try:
            policy = self._bound.sample(suggest(trial))
        except PolicyError as failure:
            _give_up(self._study, trial, "invalid", str(failure))
            return None
        essence = self._bound.essence(policy)
        if essence in known:
            _give_up(self._study, trial, "duplicate_of", known[essence])
            return None
        return policy

    def _drawn(self, known: Mapping[str, int]) -> dict[str, Any] | None:
        """Values drawn without Optuna, unless their policy is known or not valid."""
        values: dict[str, Any] = {}

        def draw(name: str, domain: Domain) -> Any:
            values[name] = domain.at(self._rng.random())
            return values[name]

        try:
            return None if self._bound.essence(self._bound.sample(draw)) in known else values
        except PolicyError:
            return None

    def _begin(self, number: int, trial: optuna.Trial) -> None:
        trial.set_user_attr(NUMBER, number)
        self._open[number] = trial

    def tell(
        self, result: TrialResult, values: Sequence[float], violations: Mapping[str, float]
    ) -> None:
        """Learn from a result: `values` in the order of the directions, `violations` by metric.

        A number that is not open is left out: the journal has it already, or has lost it.
        """
        trial = self._open.get(result.number)
        if trial is None:
            return
        with warnings.catch_warnings():  # a crash may have come between a constraint and the tell
            warnings.filterwarnings("ignore", "The constraint value is ignored")
            for metric, violation in violations.items():
                trial.set_constraint(metric, violation)
        if result.reason is not None:
            trial.set_user_attr("reason", result.reason)
        is_complete = result.status == "complete"
        self._study.tell(trial, list(values) if is_complete else None, STATES[result.status])
        del self._open[result.number]


def _give_up(study: optuna.Study, trial: optuna.Trial, reason: str, value: Any) -> None:
    trial.set_user_attr(reason, value)
    study.tell(trial, state=TrialState.FAIL)
