from __future__ import annotations

import random

import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autocomp.study.importance import importance
from autocomp.study.journal import Told

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    **{f"idle.{index}": FloatDistribution(0, 1) for index in range(6)},
    "strong": FloatDistribution(1e-4, 1e-1, log=True),
    "weak": IntDistribution(1, 3),
    "branch": CategoricalDistribution(["a", "b"]),
}


def drawn(count: int, seed: int = 0) -> list[Told]:
    """Trials drawn evenly; `only a` is there in the branch a alone."""
    rng = random.Random(seed)
    trials = []
    for number in range(count):
        values = {
            **{f"idle.{index}": rng.random() for index in range(6)},
            "strong": 10 ** rng.uniform(-4, -1),
            "weak": rng.randint(1, 3),
            "branch": rng.choice("ab"),
        }
        own = dict(DISTRIBUTIONS)
        if values["branch"] == "a":
            values["only a"], own["only a"] = rng.random(), FloatDistribution(0, 1)
        trials.append(Told(number, values, own))
    return trials


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_what_decides_is_told_from_what_does_not(direction):
    trials = drawn(60)
    values = {one.number: 30 * one.values["strong"] + 0.05 * one.values["weak"] for one in trials}
    found = importance(trials, values, direction)
    assert next(iter(found)) == "strong"
    assert found["strong"].share > 3 * found["strong"].chance
    assert sum(one.share > one.chance for name, one in found.items() if "idle" in name) <= 1
    assert sum(one.share for one in found.values()) == pytest.approx(1.0)


def test_a_conditional_parameter_counts_where_it_is_active():
    trials = drawn(80)
    values = {one.number: one.values.get("only a", 0.5) for one in trials}
    found = importance(trials, values, "minimize")
    assert found["only a"].share > found["only a"].chance


def test_of_pure_noise_nearly_nothing_passes_chance():
    rng = random.Random(1)
    trials = drawn(40)
    found = importance(trials, {one.number: rng.random() for one in trials}, "minimize")
    assert sum(one.share > one.chance for one in found.values()) <= 2


def test_trials_without_parameters_or_values_do_not_count():
    trials = drawn(40)
    values = {one.number: one.values["weak"] for one in trials}
    empty = Told(40, {}, {})
    plain = importance(trials, values, "minimize")
    assert importance([*trials, empty, *drawn(43)[41:]], values | {40: 0.0}, "minimize") == plain


def test_the_same_study_gives_the_same():
    trials = drawn(30)
    values = {one.number: one.values["strong"] for one in trials}
    assert importance(trials, values, "minimize") == importance(trials, values, "minimize")
