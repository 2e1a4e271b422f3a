from __future__ import annotations

import pickle
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autocomp.decisions import Decision
from autocomp.errors import PolicyError
from autocomp.fields import value_for
from autocomp.policy import STEPS, Policy, PruneHeads, Quantize, Retrain, Step

ratios = st.floats(0, 1, exclude_max=True).map(abs)  # -0.0 equals 0.0 but is written otherwise
units = st.sampled_from(["encoder", "decoder.layers.0", "decoder.layers.1"])
by_unit = ratios | st.dictionaries(units, ratios)
patterns = st.sampled_from(["**", "decoder.*", ("encoder", "decoder")])
compressing = st.one_of(
    st.builds(PruneHeads, layers=patterns, ratio=by_unit),
    st.builds(
        STEPS["prune_channels"],
        layers=patterns,
        exclude=patterns,
        ratio=by_unit,
        scope=st.sampled_from(["local", "global"]),
    ),
    st.builds(STEPS["drop_layers"], layers=st.just("decoder.layers"), keep=st.integers(0, 6)),
    st.builds(STEPS["resize"], image_size=st.integers(16, 2048)),
    st.builds(Retrain, steps=st.integers(0, 10**6), lr=st.floats(1e-6, 1)),
)
quantizing = st.builds(
    Quantize,
    layers=patterns,
    bits=st.sampled_from([4, 8, 16, 32]) | st.dictionaries(units, st.sampled_from([2, 3, 8])),
    scheme=st.sampled_from(["symmetric", "affine"]),
    rounding=st.sampled_from(["nearest", "compensated"]),
    activation_bits=st.sampled_from([8, 32]),
)
policies = st.builds(
    lambda before, after: Policy(steps=(*before, *after)),
    st.lists(compressing, max_size=4),
    st.lists(quantizing, max_size=2),
)


@given(policies)
def test_a_policy_round_trips_through_yaml(policy: Policy) -> None:
    again = Policy.from_yaml(policy.to_yaml())
    assert again == policy
    assert again.id == policy.id
    assert hash(again) == hash(policy)
    assert pickle.loads(pickle.dumps(policy)) == policy


@given(policies, policies)
def test_ids_are_equal_when_policies_are(one: Policy, other: Policy) -> None:
    assert (one == other) == (one.id == other.id)


def test_ways_of_writing_the_same_policy_have_one_id() -> None:
    texts = [
        "steps: [{kind: prune_heads, layers: a, ratio: {x: 0.5, y: 0}}]",
        "steps: [{ratio: {y: 0.0, x: 0.5}, layers: [a], kind: prune_heads, criterion: l2}]",
    ]
    one, other = (Policy.from_yaml(text) for text in texts)
    assert one == other
    assert one.id == other.id


def step_lines(*steps: Any) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(yaml.safe_dump({"steps": list(steps)}), "mine.yaml")
    assert all(line.startswith("mine.yaml: ") for line in caught.value.problems)
    return [line.removeprefix("mine.yaml: ") for line in caught.value.problems]


RETRAIN = {"kind": "retrain", "steps": 1}
QAT = {"kind": "quantize", "layers": "a", "bits": 8, "qat": True}
HEADS = {"kind": "prune_heads", "layers": "a"}
KINDS = ", ".join(sorted(STEPS))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param(
            [HEADS | {"ratio": 1.5}],
            ["steps.0.ratio: must be in [0, 1), but got 1.5"],
            id="ratio",
        ),
        pytest.param(
            [HEADS | {"ratio": True}],
            ["steps.0.ratio: must be in [0, 1), but got True"],
            id="ratio-bool",
        ),
        pytest.param(
            [HEADS | {"ratio": {"x.0": 2, "y": 0.1, "z": "half"}}],
            [
                "steps.0.ratio.x.0: must be in [0, 1), but got 2",
                "steps.0.ratio.z: must be in [0, 1), but got 'half'",
            ],
            id="ratio-by-unit",
        ),
        pytest.param(
            [{"kind": "quantize", "layers": "a", "bits": [8]}],
            ["steps.0.bits: must be one of 2, 3, 4, 5, 6, 8, 16, 32, but got [8]"],
            id="bits",
        ),
        pytest.param(
            [HEADS | {"ratio": 0.1, "criterion": "fpgm"}, {"kind": "retrain", "steps": -1}],
            [
                "steps.0.criterion: must be 'l1', 'l2', 'taylor' or 'random', but got 'fpgm'",
                "steps.1.steps: must be greater than or equal to 0, but got -1",
            ],
            id="two-steps",
        ),
        pytest.param(
            [HEADS],
            ["steps.0.ratio: must be given, but is missing"],
            id="missing",
        ),
        pytest.param(
            [HEADS | {"ratio": 0.1, "critereon": "l1"}],
            [
                "steps.0: unknown key 'critereon'; did you mean 'criterion'? known keys: "
                "calibration_batches, criterion, exclude, kind, layers, ratio"
            ],
            id="unknown-key",
        ),
        pytest.param(
            [{"kind": "quantise"}],
            [f"steps.0.kind: must be one of {KINDS}, but got 'quantise'; did you mean 'quantize'?"],
            id="unknown-kind",
        ),
        pytest.param(
            [{"kind": ["quantize"]}],
            [
                f"steps.0.kind: must be one of {KINDS}, but got \"['quantize']\"; "
                "did you mean 'quantize'?"
            ],
            id="kind-is-a-list",
        ),
        pytest.param(
            ["quantize"], ["steps.0: must be a step with a kind, but got 'quantize'"], id="text"
        ),
        pytest.param(
            [{"kind": "retrain", "steps": 1, "lr": float("inf")}],
            ["steps.0.lr: must be a finite number, but got inf"],
            id="infinite",
        ),
        pytest.param(
            [{"kind": "quantize", "layers": "a", "bits": 8}, {"kind": "retrain", "steps": 1}],
            [
                "steps.1: a retrain must come before every quantize step, "
                "but it follows steps.0.quantize"
                "; with qat: true that one trains on through its rounding"
            ],
            id="retrain-after-quantize",
        ),
        pytest.param(
            [
                {"kind": "quantize", "layers": "a", "bits": 8},
                {"kind": "drop_layers", "layers": "a", "keep": 1},
                {"kind": "prune_width", "layers": "a", "ratio": 0.5},
            ],
            [
                "steps.2: a prune_width must come before every quantize step, "
                "but it follows steps.0.quantize"
            ],
            id="prune-after-quantize",
        ),
        pytest.param(
            [QAT | {"rounding": "compensated"}, {"kind": "retrain", "steps": 1}],
            [
                "steps.0: rounding must be nearest with qat: true, where training makes good what "
                "rounding does, but got compensated"
            ],
            id="qat-compensated",
        ),
        pytest.param(
            [{"kind": "retrain", "steps": 1}, QAT],
            ["steps.1: quantize with qat: true must be followed by a retrain, but none follows"],
            id="qat-without-retrain",
        ),
        pytest.param(
            [QAT, {"kind": "prune_width", "layers": "a", "ratio": 0.5}, RETRAIN],
            [
                "steps.1: a prune_width must come before every quantize step, "
                "but it follows steps.0.quantize"
            ],
            id="prune-after-qat",
        ),
        pytest.param(
            [QAT, RETRAIN, {"kind": "quantize", "layers": "b", "bits": 8}, RETRAIN],
            [
                "steps.3: a retrain must come before every quantize step, "
                "but it follows steps.2.quantize"
                "; with qat: true that one trains on through its rounding"
            ],
            id="retrain-after-both",
        ),
        pytest.param(
            [{"kind": "retrain", "steps": 1}, {"kind": "gamma_l1", "layers": "a"}],
            ["steps.1: gamma_l1 must be followed by a retrain, but none follows"],
            id="gamma-without-retrain",
        ),
    ],
)
def test_a_mistake_names_place_rule_and_value(steps: list[Any], expected: list[str]) -> None:
    assert step_lines(*steps) == expected


def test_what_is_trained_through_its_rounding_may_be_trained_on() -> None:
    gamma = {"kind": "gamma_l1", "layers": "a"}
    drop = {"kind": "drop_layers", "layers": "a", "keep": 1}
    steps = [
        QAT,
        gamma,
        RETRAIN,
        drop,
        QAT,
        RETRAIN,
        {"kind": "quantize", "layers": "b", "bits": 4},
    ]
    assert len(Policy.model_validate({"steps": steps}).steps) == len(steps)


@pytest.mark.parametrize("method", ["minmax", "log", "tanh"])
def test_overflow_is_of_linear_alone(method: str) -> None:
    step = {"kind": "fixed_point", "layers": "**", "bits": 8, "method": method}
    ids = {Policy.model_validate({"steps": [step | {"overflow": one}]}).id for one in (0, 0.1)}
    assert len(ids) == 1
    with pytest.raises(PolicyError, match=r"overflow: must be less than 1, but got 5"):
        Policy.from_yaml(yaml.safe_dump({"steps": [step | {"overflow": 5}]}))


OF_CODES = {
    "group_size": 128,
    "ranges": "mse",
    "granularity": "channel",
    "scheme": "affine",
    "rounding": "compensated",
    "activation_bits": 32,
}


@pytest.mark.parametrize("bits", [16, 32, {"a": 16, "b": 32}, {"a": 16, "b": 4}], ids=str)
def test_what_is_said_of_codes_is_of_codes_alone(bits: Any) -> None:
    step = {"kind": "quantize", "layers": "**", "bits": bits}
    ids = {
        Policy.model_validate({"steps": [step | {field: value}]}).id
        for field, value in [*OF_CODES.items(), ("layers", "**")]
    }
    has_codes = isinstance(bits, dict) and 4 in bits.values()
    assert len(ids) == (len(OF_CODES) + 1 if has_codes else 1)
    with pytest.raises(PolicyError, match=r"rounding: must be 'nearest' or 'compensated', but got"):
        Policy.from_yaml(yaml.safe_dump({"steps": [step | {"rounding": "up"}]}))


@pytest.mark.parametrize(
    ("said", "field", "values"),
    [
        ({"granularity": "channel"}, "group_size", (16, 64)),
        ({"granularity": "tensor"}, "group_size", (16, 64)),
        ({"activation_bits": 32}, "ranges", ("mse", "entropy")),
    ],
    ids=["a scale a channel", "a scale a tensor", "weights alone"],
)
def test_what_means_nothing_makes_no_other_policy(
    said: dict[str, Any], field: str, values: tuple[Any, ...]
) -> None:
    step = {"kind": "quantize", "layers": "**", "bits": 4}
    for own, differ in (({}, True), (said, False)):
        steps = [step | own | {field: value} for value in values]
        ids = {Policy.model_validate({"steps": [one]}).id for one in steps}
        assert (len(ids) > 1) == differ


def test_what_older_policies_do_not_say_is_not_written() -> None:
    text = Policy(steps=(Quantize(layers=("a",), bits=4, scheme="affine"),)).to_yaml()
    assert "scheme: affine" in text
    assert "rounding" not in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.b.c", 3), ("a.b", 3), ("a.x", 1), ("a", 1), ("ab", 0), ("b", 0)],
)
def test_the_longest_parent_decides_a_value(name: str, expected: int) -> None:
    assert value_for(name, {"a": 1, "a.b": 3, "a.b.cd": 9}, 0) == expected
    assert value_for(name, 7, 0) == 7


@pytest.mark.parametrize("kind", STEPS)
def test_every_kind_of_step_is_known_by_its_kind(kind: str) -> None:
    assert issubclass(STEPS[kind], Decision)
    assert STEPS[kind].model_fields["kind"].default == kind
    assert STEPS[kind].__doc__
    assert STEPS[kind] in Step.__origin__.__args__  # type: ignore[attr-defined]
