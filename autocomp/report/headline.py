"""How small and how fast at which share of dense quality: the front in a few lines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from autocomp.ship.best import Constraint, Query, choose
from autocomp.study.front import Front, directed

SHARES = (99, 97, 95, 90)
"""Percent of dense quality."""


def headline(front: Front, export: Sequence[str], name: str) -> dict[str, Any]:
    """The best trial for each share of dense quality and each cost, and the command to export it.

    `export` is how that begins, before the trial.

    {"quality", "shares": [{"percent", "at_least", "choices": [{"metric", "trial", "command"}]}]};
    `trial` is None where nothing compressed is good enough. {"missing": why} if there is nothing
    to compare.
    """
    goals = directed(front.objectives)
    quality = next((metric for metric, direction in goals if direction == "maximize"), None)
    costs = [metric for metric, direction in goals if direction == "minimize"]
    reference = (front.reference or {}).get(quality or "", 0.0)
    if quality is None or not costs:
        return {"missing": "the space has no quality to maximise beside a cost to minimise"}
    if reference <= 0:
        return {"missing": f"there is no {quality} of the dense model to compare with yet"}
    shares = [
        {
            "percent": percent,
            "at_least": reference * percent / 100,
            "choices": [_choice(front, quality, percent, metric, export, name) for metric in costs],
        }
        for percent in SHARES
    ]
    return {"quality": quality, "shares": shares}


def _choice(
    front: Front, quality: str, percent: int, metric: str, export: Sequence[str], name: str
) -> dict[str, Any]:
    limit = (front.reference or {})[quality] * percent / 100
    good_enough = Constraint(quality, ">=", limit, f"{percent}%*dense")
    trial = choose(front, Query((good_enough,), metric, "min"))
    if trial is None:
        return {"metric": metric, "trial": None, "command": None}
    chosen = ["--trial", str(trial), "--out", f"{name}-{trial}"]
    return {"metric": metric, "trial": trial, "command": shlex.join([*export, *chosen])}
