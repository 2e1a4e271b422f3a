"""Everything a report shows of a study, as one plain object that JSON can hold. No rendering."""

from __future__ import annotations

import shlex
from typing import Any

import autocomp
from autocomp.report.gallery import gallery
from autocomp.report.headline import headline
from autocomp.report.history import cost, progress, spent_hours
from autocomp.report.layers import layers
from autocomp.report.parameters import parameters
from autocomp.report.trials import rounded, trials
from autocomp.space.metrics import METRICS, Direction
from autocomp.space.objectives import Objective
from autocomp.space.space import OWN
from autocomp.study.front import Front, directed
from autocomp.study.journal import Journal, read_journal
from autocomp.study.store import StudyStore
from autocomp.study.study import Study
from autocomp.titles import LESS_AND_MORE, MEANINGS, SHARES, name_and_unit


def digest(study: Study) -> dict[str, Any]:
    """What report.html shows; a part that cannot be had is {"missing": why}.

    `StudyError` for a file of the study that is damaged.
    """
    front, name = study.front(), study.directory.resolve().name
    journal = _journal(study)
    hours = spent_hours(study.sessions, journal.ended)
    trust = ["--trust"] if study.space.task["kind"] == OWN else []
    export = ["autocomp", *trust, "export", str(study.directory)]
    return {
        "autocomp": autocomp.__version__,
        "name": name,
        "export": shlex.join(export),
        "target": study.space.target,
        "objectives": [_objective(one, front) for one in study.space.objectives],
        "metrics": _metrics(study),
        "reference": None if front.reference is None else rounded(front.reference),
        "hypervolume": front.hypervolume,
        "trials": trials(study),
        "headline": headline(front, export, name),
        "layers": layers(study),
        "gallery": gallery(study),
        "importance": parameters(study, journal.told),
        "progress": progress(study, hours),
        "cost": cost(study, hours),
    }


def _journal(study: Study) -> Journal:
    """What the journal tells; nothing where a study was copied without it."""
    path = StudyStore(study.directory).journal
    return read_journal(path) if path.exists() else Journal({}, ())


def _objective(one: Objective, front: Front) -> dict[str, Any]:
    """`limits` are bounds in the metric's unit, None while they hang on an unknown dense model."""
    dense = (front.reference or {}).get(one.metric)
    limits = {
        end: None if bound.of_dense and dense is None else bound.value(dense)
        for end, bound in (("at_most", one.at_most), ("at_least", one.at_least))
        if bound is not None
    }
    return {"metric": one.metric, "direction": one.direction, "limits": limits}


def _metrics(study: Study) -> dict[str, dict[str, Any]]:
    """What the page says and knows of every metric, the objectives first."""
    front = study.front()
    known = dict.fromkeys(one.metric for one in front.objectives)
    for result in study.results.values():
        known |= dict.fromkeys(result.metrics)
    ways = METRICS | dict(directed(front.objectives))
    return {metric: _metric(metric, ways.get(metric)) for metric in known}


def _metric(metric: str, direction: Direction | None) -> dict[str, Any]:
    """Its better direction, if any; `percent` for a share, which is shown as one."""
    name, unit = name_and_unit(metric)
    return {
        "name": name,
        "unit": unit,
        "meaning": MEANINGS.get(metric),
        "direction": direction,
        "less_and_more": LESS_AND_MORE.get(metric, ("less", "more")),
        "percent": metric in SHARES,
    }
