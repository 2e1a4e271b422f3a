"""What proposes policies: Optuna's samplers by name, and how our domains become its parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)

from autocomp.errors import UserError, unknown
from autocomp.space.domains import Choice, Domain, IntRange, LogUniform

Suggest = Callable[[str, Domain], Any]


def tpe(seed: int) -> BaseSampler:
    """Multi-objective tree-structured Parzen estimators (Ozaki et al. 2022), parameters jointly.

    Trials in flight count as bad ones (constant liar), so that workers don't crowd together.
    """
    return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def nsga2(seed: int) -> BaseSampler:
    """NSGA-II (Deb et al. 2002): cheap, but it needs several hundred trials."""
    return NSGAIISampler(seed=seed)


def random(seed: int) -> BaseSampler:
    """Independent draws: the baseline."""
    return RandomSampler(seed=seed)


def gp(seed: int) -> BaseSampler:
    """A Gaussian process: for at most 20 parameters, for it takes seconds a trial."""
    return GPSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": tpe,
    "nsga2": nsga2,
    "random": random,
    "gp": gp,
}


def make_sampler(name: str, seed: int) -> BaseSampler:
    """The sampler of that name; `UserError` names the known ones."""
    if name not in SAMPLERS:
        raise UserError(unknown("search.sampler", name, list(SAMPLERS)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](seed)


def distribution(domain: Domain) -> BaseDistribution:
    """The Optuna distribution with the same values as a domain."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if isinstance(domain, IntRange):
        return IntDistribution(domain.low, domain.high, step=domain.step)
    return FloatDistribution(domain.low, domain.high, log=isinstance(domain, LogUniform))


def suggest(trial: optuna.Trial) -> Suggest:
    """What a bound space samples from: the values that an Optuna trial suggests."""

    def one(name: str, domain: Domain) -> Any:
        if isinstance(domain, Choice):
            return trial.suggest_categorical(name, domain.values)
        if isinstance(domain, IntRange):
            return trial.suggest_int(name, domain.low, domain.high, step=domain.step)
        log = isinstance(domain, LogUniform)
        return trial.suggest_float(name, domain.low, domain.high, log=log)

    return one
