"""The front as rows of words and numbers, ready to print."""

from __future__ import annotations

from dataclasses import dataclass

from autocomp.results import CONTROL_TRIAL, DENSE_TRIAL
from autocomp.space.metrics import Direction
from autocomp.study.front import Front, Member, directed
from autocomp.titles import in_short, number, title

RETRAINED = "dense, retrained"
NOTHING_RETRAINED = "dense: nothing is retrained"


@dataclass(frozen=True)
class Table:
    """`columns` maps a key to its heading, in order; every row has a text for every key."""

    columns: dict[str, str]
    rows: list[dict[str, str]]


def front_table(front: Front) -> Table:
    """One row a trial: dense and control, then the rest of the front, the best quality first.

    The trials that the front has beside it come among them.

    Every objective has its value and, beside it, how it stands to the dense model's: "97.2%" of a
    quality, "4.1x" less of a cost. A quality's share has its 95 % interval over the examples, where
    any is known. A trial that another one beats has its number in brackets.
    """
    goals = directed(front.objectives)
    bounds = [one.metric for one in front.objectives if one.direction is None]
    known = {metric for one in front.intervals.values() for metric in one}
    compared = [metric for metric, better in goals if better == "maximize" and metric in known]
    columns = {"trial": "trial"}
    for metric, direction in goals:
        columns[metric] = title(metric)
        columns[f"{metric}/dense"] = "of dense" if direction == "maximize" else "less"
        if metric in compared:
            columns[f"{metric}/interval"] = "95% interval"
    columns |= {metric: title(metric) for metric in bounds}
    columns["policy"] = "policy"
    members = {one.trial for one in front.members}
    rows = [
        {
            "trial": f"{trial}" if trial in members else f"({trial})",
            **_cells(metrics, front.reference, goals, bounds),
            **{f"{metric}/interval": _share(front, trial, metric) for metric in compared},
            "policy": policy,
        }
        for trial, metrics, policy in _trials(front, goals)
    ]
    return Table(columns, rows)


def _trials(
    front: Front, goals: list[tuple[str, Direction]]
) -> list[tuple[int, dict[str, float], str]]:
    """Number, metrics and policy in words of every row."""
    is_trained = front.control != front.dense  # a space without retraining measures dense once
    references = (
        (DENSE_TRIAL, front.dense, "dense"),
        (CONTROL_TRIAL, front.control, RETRAINED if is_trained else NOTHING_RETRAINED),
    )
    first = [(trial, metrics, words) for trial, metrics, words in references if metrics is not None]

    def rank(one: Member) -> tuple[float, int]:
        metric, direction = goals[0]
        value = one.metrics[metric]
        return (-value if direction == "maximize" else value, one.trial)

    shown = (*front.members, *front.others)
    others = [one for one in shown if one.trial not in (DENSE_TRIAL, CONTROL_TRIAL)]
    return first + [
        (one.trial, one.metrics, in_short(one.policy)) for one in sorted(others, key=rank)
    ]


def _cells(
    metrics: dict[str, float],
    dense: dict[str, float] | None,
    goals: list[tuple[str, Direction]],
    bounds: list[str],
) -> dict[str, str]:
    cells: dict[str, str] = {}
    for metric, direction in goals:
        cells[metric] = number(metrics[metric])
        cells[f"{metric}/dense"] = _relative(metrics[metric], (dense or {}).get(metric), direction)
    for metric in bounds:
        cells[metric] = number(metrics[metric]) if metric in metrics else ""
    return cells


def _relative(value: float, dense: float | None, direction: Direction) -> str:
    if dense is None or dense <= 0 or (direction == "minimize" and value <= 0):
        return ""
    return f"{value / dense:.1%}" if direction == "maximize" else f"{dense / value:.1f}x"


def _share(front: Front, trial: int, metric: str) -> str:
    ends = front.share_interval(trial, metric)
    return "" if ends is None else f"{100 * ends[0]:.1f}..{ends[1]:.1%}"
