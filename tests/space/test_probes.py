"""Probes touch one layer each, at every value that the space has for it."""

from __future__ import annotations

from typing import Any

import pytest

from autocomp.policy import Policy, Retrain
from autocomp.space.binding import bind
from autocomp.space.probes import Probe, by_layer, held, probes
from autocomp.space.space import SearchSpace

NAMES = ["encoder.conv1", "encoder.conv2", "decoder.0.up", "decoder.0.down", "head"]
LAYERS = dict.fromkeys(("quantize", "fixed_point", "prune_channels", "retrain"), NAMES)
QUANTIZE = {"kind": "quantize", "layers": "**"}
BITS = QUANTIZE | {"per": "block", "bits": {"choice": [32, 4, 8]}}
RATIO = {
    "kind": "prune_channels",
    "layers": "encoder.*",
    "ratio": {"uniform": [0.0, 0.4]},
    "criterion": {"choice": ["l2", "l1"]},
}
RETRAIN = {"kind": "retrain", "steps": {"choice": [1, 2]}}


def made(*steps: dict[str, Any]) -> SearchSpace:
    return SearchSpace.from_dict(
        {
            "task": {"kind": "any"},
            "target": {"kind": "any"},
            "objectives": {"cider": "maximize"},
            "policy": {"steps": list(steps)},
        }
    )


def found(*steps: dict[str, Any], retrain_steps: int = 0) -> list[Probe]:
    return probes(bind(by_layer(made(*steps)), LAYERS), retrain_steps)


def values(probed: list[Probe]) -> dict[str, list[float]]:
    by_name: dict[str, list[float]] = {}
    for one in probed:
        by_name.setdefault(one.layer, []).append(one.value)
    return by_name


def test_every_layer_is_tried_at_every_width_but_its_own() -> None:
    assert values(found(BITS)) == {key: [8, 4] for key in NAMES}


def test_what_else_is_searched_is_told_with_what_it_is_read_at() -> None:
    one = BITS | {
        "rounding": {"choice": ["nearest", "compensated"]},
        "group_size": {"choice": [64]},
    }
    assert held(made(RATIO, RETRAIN, {"choice": [one, None]})) == [
        "policy.steps.0.criterion: read at l2 alone, of l2, l1",
        "policy.steps.2.choice.0.rounding: read at nearest alone, of nearest, compensated",
    ]


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


@pytest.mark.parametrize(
    "bits", [8, {"choice": [32, 8]}, {"encoder": 8}], ids=["fixed", "searched", "by module"]
)
def test_bits_of_what_layers_give_and_of_norms_are_tried_apart(bits: Any) -> None:
    widths = {"activation_bits": {"choice": [32, 8, 4]}, "batch_norm_bits": {"choice": [16]}}
    probed = found({"kind": "fixed_point", "layers": "encoder.*", "bits": bits, **widths})
    layers = ["encoder"] if isinstance(bits, dict) and "encoder" in bits else NAMES[:2]
    apart = [("activation_bits", 8), ("activation_bits", 4), ("batch_norm_bits", 16)]
    tried = apart if layers == ["encoder"] else [("bits", 8), *apart]
    assert sorted((one.layer, one.field, one.value) for one in probed) == sorted(
        (layer, *each) for layer in layers for each in tried
    )
    for one in probed:
        (step,) = one.policy.steps
        assert step.kind == "fixed_point"
        held = {
            "bits": step.bits[one.layer] if isinstance(step.bits, dict) else step.bits,
            "activation_bits": step.activation_bits,
            "batch_norm_bits": step.batch_norm_bits,
        }
        assert held == dict.fromkeys(held, 32) | {one.field: one.value}


def test_bits_that_are_given_stay() -> None:
    fixed = {"kind": "fixed_point", "layers": "head", "bits": {"choice": [8]}, "activation_bits": 4}
    (one,) = found(fixed)
    assert [getattr(step, "activation_bits", None) for step in one.policy.steps] == [4]
    assert found(fixed | {"bits": 8}) == []


QAT = BITS | {"qat": True}
RETRAINS = [RETRAIN | {"lr": 0.5}, RETRAIN | {"lr": 0.25, "exclude": "encoder.*"}]


@pytest.mark.parametrize(
    ("steps", "kinds"),
    [
        ([RATIO, *RETRAINS], ["prune_channels", "retrain"]),
        ([QAT, *RETRAINS], ["quantize", "retrain"]),
        ([*RETRAINS, BITS], ["quantize"]),
    ],
    ids=["pruned", "trained through", "rounded for good"],
)
def test_what_can_be_trained_is_retrained_as_in_the_space(
    steps: list[dict[str, Any]], kinds: list[str]
) -> None:
    for one in found(*steps, retrain_steps=7):
        first, *rest = one.policy.steps
        assert not any(
            getattr(each, "exclude", ()) for each in rest
        )  # so that its layer is trained
        assert [each.kind for each in one.policy.steps] == kinds
        assert [(each.steps, each.lr) for each in rest if each.kind == "retrain"] == [
            (7, 0.25)
        ] * len(rest)
        assert getattr(first, "qat", False) is (QAT in steps)
    assert {len(one.policy.steps) for one in found(*steps)} == {1}


def test_a_space_that_retrains_nothing_is_retrained_by_default_settings() -> None:
    policies = {one.policy.steps[1:] for one in found(RATIO, retrain_steps=7)}
    assert policies == {(Retrain(steps=7),)}
