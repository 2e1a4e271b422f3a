"""How sure a front's members stand to dense and control: intervals over the examples they share."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from autocomp.evaluate.bootstrap import Paired, paired_intervals
from autocomp.results import CONTROL_TRIAL, DENSE_TRIAL
from autocomp.study.front import Front, Intervals
from autocomp.study.store import StudyStore

RECENT = 8
"""How many trials' predictions stay in memory; dense and control are always among them."""
log = logging.getLogger(__name__)


class Comparisons:
    """The intervals of trials whose predictions a study's folder holds, each computed once.

    Trials without predictions (of older studies), and metrics without a score of each example, have
    none.
    """

    def __init__(self, store: StudyStore, metrics: Iterable[str]) -> None:
        self._read = lru_cache(RECENT)(store.read_predictions)
        self._metrics = tuple(metrics)
        self._known: dict[tuple[int, int], dict[str, Paired]] = {}

    def compared(self, front: Front) -> Front:
        """`front` with the intervals of its members, its others, dense and the control."""
        references = {}
        if front.dense is not None:
            references["dense"] = DENSE_TRIAL
        if front.control is not None:
            references["control"] = CONTROL_TRIAL
        shown = {one.trial for one in (*front.members, *front.others)}
        trials = sorted(shown | set(references.values()))
        return replace(front, intervals={one: self._of(one, references) for one in trials})

    def _of(self, trial: int, references: Mapping[str, int]) -> Intervals:
        found: Intervals = {}
        for name, reference in references.items():
            if reference != trial:
                for metric, paired in self._against(reference, trial).items():
                    found.setdefault(metric, {})[name] = paired
        return found

    def _against(self, reference: int, trial: int) -> dict[str, Paired]:
        pair = reference, trial
        if pair not in self._known:
            self._known[pair] = self._compare(*pair)
        return self._known[pair]

    def _compare(self, reference: int, trial: int) -> dict[str, Paired]:
        theirs, ours = self._read(reference), self._read(trial)
        if theirs is None or ours is None:
            return {}
        if (ours.split, ours.names) != (theirs.split, theirs.names):
            log.warning(
                "trial %d: has no interval, for it predicted other examples than trial %d",
                trial,
                reference,
            )
            return {}
        return {
            metric: paired_intervals(ours.scores[metric], theirs.scores[metric])
            for metric in self._metrics
            if metric in ours.scores and metric in theirs.scores
        }
