from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from space_strategies import LAYERS, document, documents

from autocomp.policy import STEPS
from autocomp.space import BoundSpace, SearchSpace, bind
from autocomp.space.ladder import STRONGER
from autocomp.space.steps import fields_by_unit

CHANNELS = {
    "kind": "prune_channels",
    "layers": "**",
    "per": "stage",
    "ratio": {"uniform": [0.0, 0.8]},
    "criterion": {"choice": ["taylor", "l2"]},
}
DROP = {"kind": "drop_layers", "layers": "decoder.layers", "keep": {"int_range": [1, 3]}}
RETRAIN = {
    "kind": "retrain",
    "steps": {"choice": [1000, 300]},
    "lr": {"log_uniform": [1.0e-5, 1.0e-3]},
}
QUANTIZE = {"kind": "quantize", "layers": "**", "per": "block", "bits": {"choice": [8, 32, 4]}}


def bound(*steps: Any) -> BoundSpace:
    return bind(SearchSpace.from_dict(document(*steps)), LAYERS)


def corner(space: BoundSpace, values: dict[str, Any]) -> tuple[float, int, int]:
    return (
        values["steps.0.prune_channels.ratio[encoder.backbone.blocks.0]"],
        values["steps.1.drop_layers.keep"],
        values["steps.3.quantize.bits[decoder.embedding]"],
    )


def test_the_ends_come_first_and_the_middle_soon() -> None:
    space = bound(CHANNELS, DROP, RETRAIN, QUANTIZE)
    rungs = [corner(space, values) for values in space.ladder(100)]
    assert rungs[:2] == [(0.0, 3, 32), (0.8, 1, 4)]
    assert set(rungs[2:4]) == {(0.0, 3, 4), (0.8, 1, 32)}
    assert rungs[4] == (0.4, 2, 8)
    assert len(rungs) == len(set(rungs)) == 15


def test_a_rung_is_uniform() -> None:
    for values in bound(CHANNELS, DROP, RETRAIN, QUANTIZE).ladder(100):
        for field in ("ratio[", "bits["):
            assert len({one for name, one in values.items() if field in name}) == 1


def test_what_is_not_on_the_ladder_stands_at_its_default() -> None:
    for values in bound(CHANNELS, DROP, RETRAIN, QUANTIZE).ladder(100):
        assert values["steps.0.prune_channels.criterion"] == "taylor"
        assert values["steps.2.retrain.steps"] == 1000
        assert values["steps.2.retrain.lr"] == pytest.approx(1e-4)


def test_a_branch_takes_its_first_step() -> None:
    space = bound({"choice": [None, QUANTIZE, CHANNELS]})
    values = space.ladder(1)[0]
    assert values["steps.0"] == "quantize"
    assert not any("prune_channels" in name for name in values)


def test_rungs_that_coincide_are_one() -> None:
    assert len(bound(DROP).ladder(100)) == 3
    assert len(bound(RETRAIN).ladder(100)) == 1


@given(documents, st.integers(0, 20))
def test_every_rung_is_a_policy_of_the_space(value: dict[str, Any], count: int) -> None:
    space = bind(SearchSpace.from_dict(value), LAYERS)
    rungs = space.ladder(count)
    assert len(rungs) == min(count, len(space.ladder(1000)))
    assert rungs == space.ladder(count)
    assert rungs == space.ladder(1000)[:count]
    for values in rungs:
        asked = []
        space.sample(lambda name, _, to=values, log=asked: log.append(name) or to[name])
        assert set(asked) == set(values)
        space.policy(values)


def test_every_field_by_unit_is_on_the_ladder() -> None:
    assert {field for kind in STEPS for field in fields_by_unit(kind)} <= set(STRONGER)
