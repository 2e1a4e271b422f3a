"""An estimate adds up: trials share the workers, the dense model is trained once."""

from __future__ import annotations

import pytest

from autocomp.estimate import LATENCY_S, TEACHER, Estimate, Pace
from autocomp.policy import Retrain


def make(trials: int, workers: int) -> Estimate:
    return Estimate(
        dense_s=100, retrain_s=20, lower_s=3, evaluate_s=2, trials=trials, workers=workers
    )


@pytest.mark.parametrize(
    ("trials", "workers", "rounds"),
    [
        pytest.param(10, 1, 10, id="one worker"),
        pytest.param(10, 2, 5, id="two workers"),
        pytest.param(1, 8, 1, id="more workers than trials"),
    ],
)
def test_total(trials: int, workers: int, rounds: int) -> None:
    found = make(trials, workers)
    assert found.trial_s == 25 + LATENCY_S
    assert found.total_s == pytest.approx(100 + rounds * found.trial_s)


def test_a_teacher_costs_a_forward_pass_more() -> None:
    pace = Pace(setup_s=5, example_s=0.01)
    alone = Retrain(steps=100, batch_size=8)
    taught = alone.model_copy(update={"distill": 0.5})
    assert pace.seconds(alone) == pytest.approx(5 + 8)
    assert pace.seconds(taught) == pytest.approx(5 + 8 * TEACHER)
