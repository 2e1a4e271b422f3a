"""Made-up studies with the shapes that fronts have."""

from __future__ import annotations

import random
from typing import Any

from autocomp.policy import Policy, PruneChannels, Quantize, Retrain
from autocomp.results import Status, TrialResult
from autocomp.space.metrics import METRICS
from autocomp.space.objectives import parse_objectives
from autocomp.study.front import Front, Member

THREE = {"cider": "maximize", "size_mb": "minimize", "latency_ms": "minimize"}
BOUNDED = {
    "cider": {"direction": "maximize", "at_least": "0.85*dense"},
    "size_mb": {"direction": "minimize", "at_most": 8},
}
DENSE = {"cider": 0.6, "size_mb": 14.0, "latency_ms": 21.0, "params": 3.4e6}
CONTROL = DENSE | {"cider": 0.63, "latency_ms": 21.2}


def made_front(
    metrics: dict[int, dict[str, float]],
    objectives: dict[str, Any] = THREE,
    dense: dict[str, float] | None = DENSE,
    control: dict[str, float] | None = CONTROL,
) -> Front:
    """The front of results given by number; each one's policy retrains for as many steps."""
    members = [
        Member(number, Policy(steps=(Retrain(steps=number),)), one)
        for number, one in metrics.items()
    ]
    return Front.of(members, parse_objectives(objectives, METRICS, []), dense, control, {})


def drawn_study(
    trials: int = 40, seed: int = 0, objectives: dict[str, Any] = THREE
) -> tuple[Front, list[TrialResult]]:
    """Quality falls faster and faster as size and latency shrink; a tenth of the trials stop."""
    rng = random.Random(seed)
    results = [_result(0, Policy(), DENSE), _result(1, Policy(steps=(Retrain(steps=5),)), CONTROL)]
    policies = {0: Policy(), 1: Policy(steps=(Retrain(steps=5),))}
    for number in range(2, trials):
        ratio, bits = 0.75 * rng.random() ** 0.8, rng.choice([32, 8, 8, 4])
        width = {32: 1.0, 8: 0.38, 4: 0.25}[bits]
        metrics = {
            "cider": 0.63 - 0.3 * ratio**2.5 - 0.1 / bits - abs(rng.gauss(0, 0.03)),
            "size_mb": 14 * (1 - ratio) ** 1.4 * width,
            "latency_ms": 21 * (1 - 0.7 * ratio) * (0.5 + width / 2) * rng.uniform(0.93, 1.07),
            "params": 3.4e6 * (1 - ratio),
        }
        stopped = rng.random() < 0.1
        if stopped:
            del metrics["cider"]
        policies[number] = Policy(
            steps=(
                PruneChannels(layers="encoder", ratio=ratio),
                Retrain(steps=300),
                Quantize(layers="**", bits=bits),
            )
        )
        status: Status = "stopped" if stopped else "complete"
        results.append(_result(number, policies[number], metrics, status))
    members = [
        Member(one.number, policies[one.number], one.metrics)
        for one in results
        if one.status == "complete"
    ]
    parsed = parse_objectives(objectives, METRICS, [])
    return Front.of(members, parsed, DENSE, CONTROL, {}), results


def _result(
    number: int, policy: Policy, metrics: dict[str, float], status: Status = "complete"
) -> TrialResult:
    return TrialResult(number=number, policy_id=policy.id, status=status, metrics=metrics)
