from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from space_strategies import domains

from autocomp.errors import SpaceError
from autocomp.space.domains import (
    DOMAINS,
    Choice,
    Domain,
    IntRange,
    LogUniform,
    Uniform,
    is_domain,
    parse_domain,
)

fractions = st.floats(0, 1)


@given(domains, fractions)
def test_every_quantile_is_contained(domain: Domain, fraction: float) -> None:
    assert domain.contains(domain.at(fraction))


@given(domains, fractions, fractions)
def test_quantiles_of_a_range_rise(domain: Domain, one: float, other: float) -> None:
    if not isinstance(domain, Choice):
        low, high = sorted((one, other))
        assert domain.at(low) <= domain.at(high)
        assert (domain.at(0), domain.at(1)) == (domain.low, domain.high)


@given(domains)
def test_a_domain_loads_back_from_its_notation(domain: Domain) -> None:
    assert is_domain(domain.to_dict())
    assert parse_domain(domain.to_dict(), "place") == domain


@given(domains)
def test_the_size_is_the_number_of_distinct_quantiles(domain: Domain) -> None:
    if domain.size() <= 50:
        count = int(domain.size())
        values = {domain.at(index / (2 * count)) for index in range(2 * count + 1)}
        assert len(values) == count
    elif isinstance(domain, IntRange):
        assert math.isfinite(domain.size())
    else:
        assert domain.size() == math.inf


@pytest.mark.parametrize(
    ("domain", "values"),
    [
        (Choice((32, 8, 4)), [32, 32, 8, 4, 4]),
        (Choice(("a", "b")), ["a", "a", "b", "b", "b"]),
        (Uniform(0.0, 0.8), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8]),
        (IntRange(1, 3), [1, 1, 2, 3, 3]),
        (IntRange(100, 500, 100), [100, 200, 300, 400, 500]),
    ],
    ids=["choice", "choice-of-two", "uniform", "int", "int-step"],
)
def test_quantiles_of_known_domains(domain: Domain, values: list[Any]) -> None:
    assert [domain.at(index / 4) for index in range(5)] == values


def test_the_middle_of_a_log_uniform_is_the_geometric_mean() -> None:
    assert LogUniform(1e-5, 1e-3).at(0.5) == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("domain", "value"),
    [
        (Uniform(0, 1), 1.1),
        (Uniform(0, 1), True),
        (Uniform(0, 1), "0.5"),
        (Uniform(0, 1), math.nan),
        (LogUniform(1, 2), 0.5),
        (IntRange(1, 9, 2), 2),
        (IntRange(1, 9, 2), 3.0),
        (IntRange(0, 1), True),
        (Choice(("a",)), "b"),
    ],
)
def test_what_is_outside_is_not_contained(domain: Domain, value: Any) -> None:
    assert not domain.contains(value)


def test_yaml_numbers_without_a_dot_are_numbers() -> None:
    assert parse_domain({"log_uniform": ["1e-5", "1e-3"]}, "lr") == LogUniform(1e-5, 1e-3)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"uniform": [0.7, 0.1]}, "r.uniform: low <= high must hold, but got [0.7, 0.1]"),
        ({"uniform": [0.7]}, "r.uniform: must be [low, high], but got [0.7]"),
        ({"uniform": 0.7}, "r.uniform: must be [low, high], but got 0.7"),
        (
            {"uniform": [0, "x"]},
            "r.uniform: must be [low, high], two finite numbers, but got [0, 'x']",
        ),
        (
            {"uniform": [0, math.inf]},
            "r.uniform: must be [low, high], two finite numbers, but got [0, inf]",
        ),
        (
            {"uniform": [False, True]},
            "r.uniform: must be [low, high], two finite numbers, but got [False, True]",
        ),
        (
            {"uniform": [0, 10**400]},
            f"r.uniform: must be [low, high], two finite numbers, but got [0, {10**400}]",
        ),
        ({"log_uniform": [0, 1]}, "r.log_uniform: 0 < low must hold, but got [0.0, 1.0]"),
        ({"log_uniform": [2, 1]}, "r.log_uniform: low <= high must hold, but got [2.0, 1.0]"),
        (
            {"int_range": [1, 2.5]},
            "r.int_range: must be [low, high], two whole numbers, but got [1, 2.5]",
        ),
        ({"int_range": [3, 1]}, "r.int_range: low <= high must hold, but got [3, 1]"),
        (
            {"int_range": [1, 4], "step": 2},
            "r.int_range: high - low must be a multiple of step, but got [1, 4] and step 2",
        ),
        (
            {"int_range": [1, 4], "step": 0},
            "r.int_range: step must be a whole number >= 1, but got 0",
        ),
        ({"choice": []}, "r.choice: must hold at least one value, but got []"),
        ({"choice": "l2"}, "r.choice: must be a list of values, but got 'l2'"),
        ({"choice": [1, 1]}, "r.choice: must hold different values, but got [1, 1]"),
        (
            {"choice": [[1], 2]},
            "r.choice: must hold strings, numbers, booleans or null, but got [[1], 2]",
        ),
        ({"choice": [math.nan]}, "r.choice: must hold finite numbers, but got [nan]"),
        ({"uniform": [0, 1], "step": 1}, "r: unknown key 'step'; known keys: uniform"),
        ({"choice": [1], "uniform": [0, 1]}, "r: must be one domain, but got choice and uniform"),
        (
            {"unifrom": [0, 1]},
            "r: must be a value or one domain of choice, uniform, log_uniform, int_range, "
            "but got {'unifrom': [0, 1]}; did you mean 'uniform'?",
        ),
    ],
)
def test_a_bad_domain_names_place_rule_and_value(value: dict[str, Any], expected: str) -> None:
    with pytest.raises(SpaceError) as caught:
        parse_domain(value, "r")
    assert str(caught.value) == expected


@pytest.mark.parametrize("name", DOMAINS)
def test_every_domain_states_what_it_is(name: str) -> None:
    assert DOMAINS[name].__doc__
