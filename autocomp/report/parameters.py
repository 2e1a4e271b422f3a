"""Which parameters of the space mattered, for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from autocomp.study.front import directed
from autocomp.study.importance import FEWEST, importance
from autocomp.study.journal import Told
from autocomp.study.study import Study

PARAMETER = re.compile(r"steps\.\d+\.(?P<kind>\w+)\.(?P<field>[^\[]+)(\[(?P<where>.*)\])?")


def parameters(study: Study, told: Sequence[Told]) -> dict[str, Any]:
    """By objective every parameter, the most important first, or {"missing": why}.

    {"trials": how many, "objectives": {metric: [{"what", "where", "share", "chance"}]}}
    """
    complete = {
        number: result.metrics
        for number, result in study.results.items()
        if result.status == "complete"
    }
    usable = [one for one in told if one.values and one.number in complete]
    if len(usable) < FEWEST:
        rule = f"needs {FEWEST} complete trials besides dense and control to tell them from chance"
        return {"missing": f"{rule}, and there are {len(usable)}"}
    found = {
        metric: importance(usable, {n: one[metric] for n, one in complete.items()}, direction)
        for metric, direction in directed(study.space.objectives)
    }
    return {
        "trials": len(usable),
        "objectives": {
            metric: [
                {**words, **one._asdict()}
                for words, one in zip(told_apart(list(shares)), shares.values(), strict=True)
            ]
            for metric, shares in found.items()
        },
    }


def told_apart(names: Sequence[str]) -> list[dict[str, str]]:
    """All parameters in words; where these are the same for two, with the steps they belong to."""
    words = [in_words(name) for name in names]
    return [
        one | {"where": f"{one['where']} steps.{name.split('.')[1]}".strip()}
        if words.count(one) > 1
        else one
        for name, one in zip(names, words, strict=True)
    ]


def in_words(parameter: str) -> dict[str, str]:
    """What a parameter sets, and where: {"what": "prune_width ratio", "where": "decoder.layers"}.

    `where` is empty for one of the whole step.
    """
    found = PARAMETER.fullmatch(parameter)
    if not found:
        return {"what": parameter, "where": ""}
    return {"what": f"{found['kind']} {found['field']}", "where": found["where"] or ""}
