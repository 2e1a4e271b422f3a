"""Every trial of a study as a report shows it: its kind, its policy in words, its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autocomp.report.panels import CONTROL, DENSE, FRONT, OTHER, OUT_OF_BOUNDS, STOPPED
from autocomp.report.table import NOTHING_RETRAINED, RETRAINED
from autocomp.results import CONTROL_TRIAL, DENSE_TRIAL, TrialResult
from autocomp.study.front import Front, is_feasible
from autocomp.study.study import Study
from autocomp.titles import changing, in_short
from autocomp.words import describe

FAILED = "failed"
DIGITS = 6
"""Significant ones that a metric is given with."""
REFERENCES = (DENSE_TRIAL, CONTROL_TRIAL)


def trials(study: Study) -> list[dict[str, Any]]:
    """One object a trial that has ended, in the order of their numbers.

    `intervals` are the ends of how far each metric's mean lies from that of dense and control, for
    members of the front and these two where their predictions were kept.
    """
    front = study.front()
    members = {one.trial for one in front.members}
    return [
        {
            "number": number,
            "kind": kind(result, front),
            "on_front": number in members,
            "reason": result.reason,
            "short": _short(study, number),
            "words": describe(changing(study.policies[number])),
            "metrics": rounded(result.metrics),
            "seconds": round(sum(result.seconds.values()), 1),
            "skipped": list(result.skipped),
            "intervals": front.differences(number),
        }
        for number, result in study.results.items()
    ]


def _short(study: Study, number: int) -> str:
    if number == DENSE_TRIAL:
        return DENSE
    if number == CONTROL_TRIAL:
        is_trained = study.policies[CONTROL_TRIAL].id != study.policies[DENSE_TRIAL].id
        return RETRAINED if is_trained else NOTHING_RETRAINED
    return in_short(study.policies[number])


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics as a page has them: those of trials and of what they are compared with alike."""
    return {key: float(f"{one:.{DIGITS}g}") for key, one in metrics.items()}


def kind(result: TrialResult, front: Front) -> str:
    """What a trial counts as in a picture of the front: the kinds of `panels`, or failed."""
    if result.status != "complete":
        return STOPPED if result.status == "stopped" else FAILED
    if result.number in REFERENCES:
        return DENSE if result.number == DENSE_TRIAL else CONTROL
    if any(one.trial == result.number for one in front.members):
        return FRONT
    good = is_feasible(result.metrics, front.objectives, front.reference)
    return OTHER if good else OUT_OF_BOUNDS
