"""Probes touch one layer each, at every value that the space has for it."""

from __future__ import annotations

from typing import Any

import pytest

from autocomp.policy import Policy
from autocomp.space.binding import bind
from autocomp.space.probes import Probe, by_layer, probes
from autocomp.space.space import SearchSpace

NAMES = ["encoder.conv1", "encoder.conv2", "decoder.0.up", "decoder.0.down", "head"]
LAYERS = dict.fromkeys(("quantize", "prune_channels", "retrain"), NAMES)
QUANTIZE = {"kind": "quantize", "layers": "**"}
BITS = QUANTIZE | {"per": "block", "bits": {"choice": [32, 4, 8]}}
RATIO = {
    "kind": "prune_channels",
    "layers": "encoder.*",
    "ratio": {"uniform": [0.0, 0.4]},
    "criterion": {"choice": ["l2", "l1"]},
}
RETRAIN = {"kind": "retrain", "steps": {"choice": [1, 2]}}


def found(*steps: dict[str, Any]) -> list[Probe]:
    space = SearchSpace.from_dict(
        {
            "task": {"kind": "any"},
            "target": {"kind": "any"},
            "objectives": {"cider": "maximize"},
            "policy": {"steps": list(steps)},
        }
    )
    return probes(bind(by_layer(space), LAYERS))


def values(probed: list[Probe]) -> dict[str, list[float]]:
    by_name: dict[str, list[float]] = {}
    for one in probed:
        by_name.setdefault(one.layer, []).append(one.value)
    return by_name


def test_every_layer_is_tried_at_every_width_but_its_own() -> None:
    assert values(found(BITS)) == {key: [8, 4] for key in NAMES}


def test_a_range_of_ratios_is_tried_at_quantiles() -> None:
    expected = pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert values(found(RATIO)) == dict.fromkeys(NAMES[:2], expected)


def test_a_policy_is_one_step_on_one_layer() -> None:
    probed = found(RATIO, RETRAIN, BITS)
    assert {one.kind for one in probed} == {"prune_channels", "quantize"}
    for one in probed:
        (step,) = one.policy.steps
        assert step.kind == one.kind
        assert step.layers == (one.layer,)
        assert (step.bits if one.kind == "quantize" else step.ratio) == {one.layer: one.value}
    assert {step.criterion for one in probed[:8] for step in one.policy.steps} == {"l2"}


def test_what_is_fixed_is_no_parameter() -> None:
    assert found(RETRAIN, QUANTIZE | {"bits": 8}) == []


def test_nothing_is_trained_through() -> None:
    probed = found(BITS | {"qat": True}, RETRAIN)
    assert values(probed) == {name: [8, 4] for name in NAMES}
    assert not any(step.qat for one in probed for step in one.policy.steps)


def test_units_that_a_mapping_names_stay_as_they_are() -> None:
    mapping = {"encoder": {"choice": [8, 4]}, "head": 8}
    assert values(found(QUANTIZE | {"bits": mapping})) == {"encoder": [8, 4]}


def test_branches_are_tried_each_and_equal_policies_once() -> None:
    probed = found({"choice": [BITS, "none"]}, BITS)
    assert values(probed) == {key: [8, 4] for key in NAMES}
    assert len({one.policy.id for one in probed}) == len(probed)
    assert all(isinstance(one.policy, Policy) for one in probed)
