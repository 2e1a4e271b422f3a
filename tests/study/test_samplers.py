from __future__ import annotations

import math

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from search_toys import toy_bound, toy_space

from autocomp.errors import UserError
from autocomp.space.domains import Choice, IntRange, LogUniform, Uniform
from autocomp.study.samplers import SAMPLERS, make_sampler, suggest

DOMAINS = {
    "mixed": Choice((None, "l1", 4, 0.5)),
    "flags": Choice((True, False)),
    "real": Uniform(0.0, 0.7),
    "point": Uniform(0.3, 0.3),
    "scale": LogUniform(1e-5, 1e-3),
    "keep": IntRange(1, 3),
    "even": IntRange(2, 10, 4),
}


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (DOMAINS["mixed"], CategoricalDistribution((None, "l1", 4, 0.5))),
        (DOMAINS["real"], FloatDistribution(0.0, 0.7)),
        (DOMAINS["scale"], FloatDistribution(1e-5, 1e-3, log=True)),
        (DOMAINS["even"], IntDistribution(2, 10, step=4)),
    ],
    ids=["choice", "uniform", "log-uniform", "int-range"],
)
def test_a_domain_becomes_the_same_distribution(domain, expected):
    trial = optuna.create_study().ask()
    suggest(trial)("x", domain)
    assert trial.distributions == {"x": expected}


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_sampler_stays_inside_its_domains(name):
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_sampler(name, 0))
    for _ in range(14):
        trial = study.ask()
        values = {key: suggest(trial)(key, domain) for key, domain in DOMAINS.items()}
        assert all(DOMAINS[key].contains(value) for key, value in values.items())
        trial.set_constraint("size_mb", values["real"] - 0.5)
        study.tell(trial, [values["real"], math.log(values["scale"])])


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_the_seed_decides_the_first_draws(name):
    def draw(seed):
        study = optuna.create_study(directions=["minimize"] * 2, sampler=make_sampler(name, seed))
        return toy_bound(toy_space()).sample(suggest(study.ask()))

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_an_unknown_sampler_is_named_with_the_known_ones():
    with pytest.raises(UserError, match=r"search\.sampler: must be one of gp, .*but got 'tpee'"):
        make_sampler("tpee", 0)
