from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from space_strategies import LAYERS, document, documents

from autocomp.errors import PolicyError
from autocomp.policy import Policy
from autocomp.space import BoundSpace, SearchSpace, bind

WIDTH = {"kind": "prune_width", "layers": "decoder.**", "per": "block"}
RATIO = {"ratio": {"choice": [0.0, 0.5]}, "criterion": "l2"}
RETRAIN = {"kind": "retrain", "steps": {"choice": [300, 1000]}, "lr": 1e-3}
QUANTIZE = {"kind": "quantize", "layers": "**", "bits": {"choice": [8, 4]}}
SPACE = [WIDTH | RATIO, {"choice": [RETRAIN, None]}, QUANTIZE]

PRUNED = {
    "kind": "prune_width",
    "layers": "decoder.**",
    "ratio": {"decoder.layers.0": 0.5, "decoder.layers.1": 0.0},
}
RETRAINED = {"kind": "retrain", "steps": 300, "lr": 1e-3}
ROUNDED = {"kind": "quantize", "layers": "**", "bits": 8}


def bound(*steps: Any) -> BoundSpace:
    return bind(SearchSpace.from_dict(document(*steps)), LAYERS)


def policy(*steps: dict[str, Any]) -> Policy:
    return Policy.model_validate({"steps": steps})


def in_short_form(policy: Policy) -> list[dict[str, Any]]:
    """The steps, with one value where all modules have the same: either form says the same."""

    def short(value: Any) -> Any:
        alike = isinstance(value, dict) and len(set(value.values())) == 1
        return next(iter(value.values())) if alike else value

    steps = policy.model_dump()["steps"]
    return [{field: short(value) for field, value in step.items()} for step in steps]


@given(documents, st.integers(0, 1000))
def test_every_sampled_policy_has_its_place(value: dict[str, Any], seed: int) -> None:
    space = bind(SearchSpace.from_dict(value), LAYERS)
    sampled = space.random(random.Random(seed))
    assert in_short_form(space.policy(space.values(sampled))) == in_short_form(sampled)


def test_values_are_those_of_the_parameters() -> None:
    assert bound(*SPACE).values(policy(PRUNED, RETRAINED, ROUNDED)) == {
        "steps.0.prune_width.ratio[decoder.layers.0]": 0.5,
        "steps.0.prune_width.ratio[decoder.layers.1]": 0.0,
        "steps.1": "retrain",
        "steps.1.retrain.steps": 300,
        "steps.2.quantize.bits": 8,
    }


def test_a_step_may_be_left_out_where_the_space_says_so() -> None:
    values = bound(*SPACE).values(policy(PRUNED, ROUNDED))
    assert values["steps.1"] == "none"
    assert values["steps.2.quantize.bits"] == 8


def test_one_value_stands_for_all_modules() -> None:
    space = bound(*SPACE)
    uniform = {"decoder.layers.0": 0.5, "decoder.layers.1": 0.5}
    short, long = (policy(PRUNED | {"ratio": one}, ROUNDED) for one in (0.5, uniform))
    assert space.values(short) == space.values(long)


@pytest.mark.parametrize(
    ("domain", "written", "value"),
    [
        ({"choice": ["1e-3", "3e-4"]}, 3e-4, "3e-4"),
        ({"choice": [1, 2]}, 2.0, 2),
        ({"int_range": [0, 2]}, 1.0, 1),
    ],
    ids=["text", "whole", "range"],
)
def test_values_are_as_the_space_writes_them(domain: Any, written: float, value: Any) -> None:
    space = bound(RETRAIN | {"steps": 300, "lr": 1e-3, "hidden": domain})
    found = space.values(policy(RETRAINED | {"hidden": written}))["steps.0.retrain.hidden"]
    assert (found, type(found)) == (value, type(value))


def test_of_two_steps_of_one_kind_either_may_be_left_out() -> None:
    space = bound({"choice": [RETRAIN, None]}, RETRAIN | {"lr": {"choice": [1e-3, 1e-4]}})
    values = space.values(policy(RETRAINED | {"lr": 1e-4}))
    assert (values["steps.0"], values["steps.1.retrain.lr"]) == ("none", 1e-4)


def test_patterns_may_be_a_choice() -> None:
    space = bound(RETRAIN | {"train": {"choice": ["encoder", "decoder"]}})
    values = space.values(policy(RETRAINED | {"train": "decoder"}))
    assert values["steps.0.retrain.train"] == "decoder"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            [PRUNED, RETRAINED | {"steps": 400}, ROUNDED],
            r"steps\.1\.steps: must be in \{'choice': \[300, 1000\]\}, but got 400",
        ),
        (
            [PRUNED | {"ratio": {"decoder.layers.0": 0.5}}, ROUNDED],
            r"steps\.0\.ratio\.decoder\.layers\.1: must be given, but is missing",
        ),
        (
            [PRUNED | {"criterion": "l1"}, ROUNDED],
            r"steps\.0\.criterion: must be 'l2', as in the space, but got 'l1'",
        ),
        (
            [RETRAINED, ROUNDED],
            r"steps\.0: must be a prune_width \(policy\.steps\.0\), but is a retrain",
        ),
        (
            [PRUNED, RETRAINED],
            r"steps\.2: must be a quantize \(policy\.steps\.2\), but is missing",
        ),
        (
            [PRUNED, RETRAINED, ROUNDED, ROUNDED],
            r"steps\.3: must not be there, for the space has no more",
        ),
    ],
    ids=["value", "module", "fixed", "kind", "missing", "surplus"],
)
def test_where_a_policy_leaves_the_space_is_named(
    steps: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(PolicyError, match=f"^{message}$"):
        bound(*SPACE).values(policy(*steps))
