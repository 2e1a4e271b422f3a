"""How small and how fast at which share of dense quality: the front in a few lines."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autocomp.errors import UserError
from autocomp.ship.best import best
from autocomp.study.front import Front, directed

SHARES = (99, 97, 95, 90)
"""Percent of dense quality."""


def headline(front: Front, directory: Path, name: str) -> dict[str, Any]:
    """The best trial for each share of dense quality and each cost, and the command to export it.

    {"quality", "shares": [{"percent", "at_least", "choices": [{"metric", "trial", "command"}]}]};
    `trial` is None where none is good enough. {"missing": why} if there is nothing to compare.
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
            "choices": list(_choices(front, quality, percent, costs, directory, name)),
        }
        for percent in SHARES
    ]
    return {"quality": quality, "shares": shares}


def _choices(
    front: Front, quality: str, percent: int, costs: list[str], directory: Path, name: str
) -> Iterator[dict[str, Any]]:
    for metric in costs:
        query = f"{quality}>={percent / 100:g}*dense, min {metric}"
        try:
            trial = best(front, query)
        except UserError:
            yield {"metric": metric, "trial": None, "command": None}
            continue
        chosen = ["--trial", str(trial), "--out", f"{name}-{percent}"]
        command = ["autocomp", "export", str(directory), *chosen]
        yield {"metric": metric, "trial": trial, "command": shlex.join(command)}
