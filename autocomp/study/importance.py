"""Which parameters decide whether a trial is among the best, by one objective at a time."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from autocomp.space.metrics import Direction
from autocomp.study.journal import Told

FEWEST = 15
"""Of fewer trials, the best quarter is three, which agree in something by chance alone."""
BEST = 0.25
SHUFFLES = 19
"""What exceeds all of so many draws from chance would do so once in twenty by chance."""


class Importance(NamedTuple):
    """A parameter's `share` of all importance, and the highest share it has by `chance`."""

    share: float
    chance: float


def importance(
    told: Sequence[Told], values: Mapping[int, float], direction: Direction
) -> dict[str, Importance]:
    """Each parameter's share in what sets the best quarter of the trials apart, the largest first.

    `values` is the objective by trial number; trials without one, or without parameters, don't
    count. Shares add up to 1, or are all 0 if nothing sets any apart. PED-ANOVA (Watanabe et al.
    2023) compares the densities of a parameter's values, so that trials need not be drawn evenly,
    and a conditional parameter counts where it is active. It never gives exactly 0, and few trials
    agree in much: `chance` is the most that `SHUFFLES` reassignments of the values to the trials
    give a parameter. Of fewer than `FEWEST` trials it says nothing.
    """
    usable = [one for one in told if one.values and one.number in values]
    sign = -1.0 if direction == "maximize" else 1.0
    losses = [sign * values[one.number] for one in usable]
    study = _study(usable)
    found = _divergences(study, losses)
    rng = random.Random(0)
    shuffled = [_divergences(study, rng.sample(losses, len(losses))) for _ in range(SHUFFLES)]
    whole = sum(found.values()) or 1.0
    return {
        name: Importance(value / whole, max(one[name] for one in shuffled) / whole)
        for name, value in found.items()
    }


def _study(told: Sequence[Told]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    study.add_trials(
        optuna.create_trial(
            params=dict(one.values), distributions=dict(one.distributions), value=0.0
        )
        for one in told
    )
    return study


def _divergences(study: optuna.Study, losses: Sequence[float]) -> dict[str, float]:
    """By parameter, how far the trials with the lowest losses differ from all; largest first."""
    with warnings.catch_warnings():
        # it is new, says that less is better, and a branch that few trials took counts for little
        warnings.simplefilter("ignore")
        return get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=BEST),
            target=lambda trial: losses[trial.number],
            normalize=False,
        )
