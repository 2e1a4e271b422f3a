from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from space_strategies import LAYERS, document, documents

from autocomp.errors import PolicyError, SpaceError
from autocomp.policy import Policy, Retrain
from autocomp.space import BoundSpace, Choice, Domain, IntRange, SearchSpace, Uniform, bind

HEADS = {"kind": "prune_heads", "layers": "**"}
WIDTH = {"kind": "prune_width", "layers": "**"}
CHANNELS = {"kind": "prune_channels", "layers": "encoder.backbone.*"}
QUANTIZE = {"kind": "quantize", "layers": "**", "bits": {"choice": [32, 8, 4]}}
FIXED = {"kind": "fixed_point", "layers": "**", "bits": 32}
RETRAIN = {"kind": "retrain", "steps": {"choice": [300, 1000]}}
RATIO = {"ratio": {"uniform": [0.0, 0.5]}}


def bound(*steps: Any) -> BoundSpace:
    return bind(SearchSpace.from_dict(document(*steps)), LAYERS)


@given(documents, st.integers(0, 1000))
def test_every_sampled_policy_is_valid_and_round_trips(value: dict[str, Any], seed: int) -> None:
    space = bind(SearchSpace.from_dict(value), LAYERS)
    policy = space.random(random.Random(seed))
    again = Policy.from_yaml(policy.to_yaml())
    assert again == policy
    assert again.id == policy.id


@given(documents, st.integers(0, 1000))
def test_only_active_parameters_are_asked_for_and_once(value: dict[str, Any], seed: int) -> None:
    space = bind(SearchSpace.from_dict(value), LAYERS)
    rng = random.Random(seed)
    asked: dict[str, Any] = {}

    def suggest(name: str, domain: Domain) -> Any:
        assert name not in asked
        assert space.parameters[name] == domain
        asked[name] = domain.at(rng.random())
        return asked[name]

    policy = space.sample(suggest)
    assert space.policy(asked) == policy
    inactive = {
        name for name, (branch, label) in space.conditions.items() if asked[branch] != label
    }
    assert set(asked) == set(space.parameters) - inactive


@pytest.mark.parametrize(
    ("per", "units"),
    [
        (
            "layer",
            [
                "[encoder.backbone.conv_stem]",
                "[encoder.backbone.blocks.0.0.conv_pw]",
                "[encoder.backbone.blocks.0.1.conv_pw]",
                "[encoder.backbone.blocks.1.0.conv_pw]",
            ],
        ),
        (
            "block",
            [
                "[encoder.backbone.conv_stem]",
                "[encoder.backbone.blocks.0.0]",
                "[encoder.backbone.blocks.0.1]",
                "[encoder.backbone.blocks.1.0]",
            ],
        ),
        (
            "stage",
            [
                "[encoder.backbone.conv_stem]",
                "[encoder.backbone.blocks.0]",
                "[encoder.backbone.blocks.1]",
            ],
        ),
        ("pattern", [""]),
    ],
)
def test_per_makes_one_parameter_a_unit(per: str, units: list[str]) -> None:
    space = bound(CHANNELS | RATIO | {"per": per})
    assert space.parameters == {
        f"steps.0.prune_channels.ratio{unit}": Uniform(0.0, 0.5) for unit in units
    }
    ratio = space.sample(lambda _, domain: domain.at(1)).steps[0].ratio  # type: ignore[union-attr]
    assert ratio == (0.5 if per == "pattern" else {unit[1:-1]: 0.5 for unit in units})


def test_excluded_layers_have_no_parameters() -> None:
    space = bound(CHANNELS | RATIO | {"per": "stage", "exclude": ["*.conv_stem", "*.blocks.0"]})
    assert list(space.parameters) == ["steps.0.prune_channels.ratio[encoder.backbone.blocks.1]"]


def test_a_mapping_by_module_may_hold_domains() -> None:
    step = HEADS | {"ratio": {"encoder": {"uniform": [0, 0.5]}, "decoder.layers.0": 0.25}}
    space = bound(step)
    assert list(space.parameters) == ["steps.0.prune_heads.ratio[encoder]"]
    policy = space.sample(lambda name, domain: 0.125)
    assert policy.steps[0].ratio == {  # type: ignore[union-attr]
        "encoder": 0.125,
        "decoder.layers.0": 0.25,
    }


def test_names_in_a_branch_say_which_option_they_belong_to() -> None:
    branch = {
        "choice": [QUANTIZE, None, QUANTIZE | {"group_size": 64, "per": "block"}, HEADS | RATIO]
    }
    space = bound(RETRAIN, branch)
    label = Choice(("quantize.0", "none", "quantize.2", "prune_heads"))
    bits = Choice((32, 8, 4))
    assert space.parameters == {
        "steps.0.retrain.steps": Choice((300, 1000)),
        "steps.1": label,
        "steps.1.quantize.0.bits": bits,
        "steps.1.quantize.2.bits[decoder.embedding]": bits,
        "steps.1.quantize.2.bits[decoder.layers.0]": bits,
        "steps.1.quantize.2.bits[decoder.layers.1]": bits,
        "steps.1.prune_heads.ratio": Uniform(0.0, 0.5),
    }
    assert space.conditions["steps.1.prune_heads.ratio"] == ("steps.1", "prune_heads")
    assert "steps.0.retrain.steps" not in space.conditions


@given(documents)
def test_parameter_names_are_unique(value: dict[str, Any]) -> None:
    space = bind(SearchSpace.from_dict(value), LAYERS)
    count = sum(
        1 + sum(len(list(step.domains())) for step in item.options.values() if step)
        if hasattr(item, "options")
        else len(list(item.domains()))
        for item in space.items
    )
    assert len(space.parameters) == count


@pytest.mark.parametrize(
    ("steps", "size"),
    [
        ([QUANTIZE], 3),
        ([QUANTIZE | {"per": "block"}], 27),
        ([RETRAIN, QUANTIZE], 6),
        ([{"choice": [QUANTIZE, None]}], 4),
        ([WIDTH | {"ratio": {"choice": [0, 0.5]}, "per": "layer"}, QUANTIZE], 24),
        ([HEADS | RATIO, QUANTIZE], math.inf),
        ([HEADS | {"ratio": 0.5}], 1),
        ([{"choice": [HEADS | RATIO, None]}, RETRAIN], math.inf),
    ],
)
def test_size_counts_policies(steps: list[Any], size: float) -> None:
    assert bound(*steps).size() == size


def test_size_agrees_with_enumeration() -> None:
    space = bound({"choice": [HEADS | {"ratio": {"choice": [0, 0.5]}}, None]}, RETRAIN, QUANTIZE)
    rng = random.Random(0)
    assert len({space.random(rng) for _ in range(500)}) == space.size() == 18


def test_random_draws_choices_evenly() -> None:
    space, rng = bound(QUANTIZE), random.Random(0)
    drawn = [space.random(rng).steps[0].bits for _ in range(3000)]  # type: ignore[union-attr]
    assert all(900 < drawn.count(bits) < 1100 for bits in (32, 8, 4))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        pytest.param(
            CHANNELS | RATIO | {"layers": "encoder.bakbone.*"},
            "policy.steps.0.layers: must match a layer that prune_channels can act on, but "
            "'encoder.bakbone.*' matches none; nearest: encoder.backbone, "
            "encoder.backbone.blocks, encoder.backbone.blocks.1",
            id="layers",
        ),
        pytest.param(
            {"choice": [QUANTIZE | {"exclude": ["decoder.embeding", "zzz"]}]},
            "policy.steps.0.choice.0.exclude: must match a layer that quantize can act on, but "
            "'decoder.embeding' matches none; nearest: decoder.embedding, decoder, "
            "decoder.layers\n"
            "policy.steps.0.choice.0.exclude: must match a layer that quantize can act on, but "
            "'zzz' matches none; nearest: decoder, decoder.embedding, decoder.layers",
            id="exclude-in-a-branch",
        ),
        pytest.param(
            RETRAIN | {"train": {"choice": ["**", "decodr"]}},
            "policy.steps.0.train: must match a layer that retrain can act on, but "
            "'decodr' matches none; nearest: decoder, encoder, decoder.head",
            id="train",
        ),
        pytest.param(
            {"kind": "drop_layers", "layers": "decoder", "keep": 1},
            "policy.steps.0.layers: must name a layer that drop_layers can act on, but "
            "'decoder' matches none; nearest: decoder.layers, encoder.layers",
            id="one-name-is-no-pattern",
        ),
        pytest.param(
            HEADS | {"ratio": {"decoder.layer.0": {"uniform": [0, 0.5]}}},
            "policy.steps.0.ratio.decoder.layer.0: must name a layer that prune_heads can act on, "
            "but 'decoder.layer.0' matches none; nearest: decoder.layers.0, encoder.layers.0, "
            "decoder.layers",
            id="by-module",
        ),
        pytest.param(
            HEADS | RATIO | {"layers": "encoder", "exclude": "encoder.layers"},
            "policy.steps.0.layers: must leave prune_heads something to act on, "
            "but ['encoder'] without ['encoder.layers'] leaves nothing",
            id="nothing-left",
        ),
    ],
)
def test_a_pattern_without_a_match_is_reported_with_the_nearest(step: Any, expected: str) -> None:
    with pytest.raises(SpaceError) as caught:
        bound(step)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("keep", "shown"),
    [
        (4, "4"),
        ({"int_range": [1, 4]}, "{'int_range': [1, 4]}"),
        ({"choice": [2, 4]}, "{'choice': [2, 4]}"),
        ({"int_range": [0, 2]}, "{'int_range': [0, 2]}"),
    ],
    ids=["value", "range", "choice", "none"],
)
def test_as_many_layers_are_kept_as_may_be(keep: Any, shown: str) -> None:
    depth = {"kind": "drop_layers", "layers": "decoder.layers", "keep": keep}
    space = SearchSpace.from_dict(document({"choice": [depth, None]}))
    with pytest.raises(SpaceError) as caught:
        bind(space, LAYERS, {"decoder.layers": (1, 3)})
    assert str(caught.value) == (
        "policy.steps.0.choice.0.keep: must be from 1 to 3 of the layers of 'decoder.layers', "
        f"but got {shown}"
    )
    bind(space, LAYERS, {"decoder.layers": (0, 4)})


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ([HEADS | {"ratio": 0.0}, WIDTH | {"ratio": {"a": 0.0, "b": 0}}], []),
        ([HEADS | {"ratio": {"a": 0.0, "b": 0.1}}], [0]),
        ([QUANTIZE | {"bits": 32}, QUANTIZE | {"bits": 8}], [1]),
        ([RETRAIN | {"steps": 5}, QUANTIZE | {"bits": {"a": 32}}], [0]),
        (
            [{"kind": "drop_layers", "layers": "decoder.layers", "keep": keep} for keep in (3, 2)],
            [1],
        ),
        ([{"kind": "drop_layers", "layers": "elsewhere", "keep": 3}], [0]),
        ([FIXED | one for one in ({}, {"activation_bits": 8}, {"batch_norm_bits": 8})], [1, 2]),
    ],
    ids=["ratios", "one ratio", "bits", "bits by module", "depth", "unknown depth", "fixed point"],
)
def test_policies_that_do_the_same_have_one_essence(steps: list[Any], kept: list[int]) -> None:
    space = bind(SearchSpace.from_dict(document(HEADS | RATIO)), LAYERS, {"decoder.layers": (1, 3)})
    policy = Policy.model_validate({"steps": steps})
    assert space.essence(policy) == Policy(steps=tuple(policy.steps[one] for one in kept)).id


def test_a_step_that_no_layer_supports_is_reported() -> None:
    space = SearchSpace.from_dict(document(HEADS | RATIO))
    with pytest.raises(SpaceError) as caught:
        bind(space, {})
    assert str(caught.value) == (
        "policy.steps.0: prune_heads must have something to act on in this model, but has nothing: "
        "it acts on attention layers of autocomp's own"
    )


def test_values_outside_the_space_are_refused() -> None:
    space = bound({"choice": [HEADS | RATIO, None]}, QUANTIZE)
    with pytest.raises(PolicyError, match=r"^steps\.0: must be given, but is missing$"):
        space.policy({"steps.1.quantize.bits": 8})
    with pytest.raises(
        PolicyError, match=r"^steps\.1\.quantize\.bits: must be in .*\[32, 8, 4\].*got 16$"
    ):
        space.policy({"steps.0": "none", "steps.1.quantize.bits": 16})


@pytest.mark.parametrize("methods", [["linear", "minmax"], ["minmax", "linear"]], ids="/".join)
def test_every_method_is_drawn_beside_an_overflow(methods: list[str]) -> None:
    searched = {"method": {"choice": methods}, "overflow": {"uniform": [0.01, 0.1]}}
    space = bound(FIXED | {"bits": {"choice": [8, 4]}} | searched)
    rng = random.Random(0)
    policies = [space.policy(rung) for rung in space.ladder(4)]
    policies += [space.random(rng) for _ in range(20)]
    drawn = {(step.method, step.overflow > 0) for one in policies for step in one.steps}
    assert drawn == {("linear", True), ("minmax", False)}


def test_the_control_retrains_and_does_nothing_else() -> None:
    space = bound(
        HEADS | RATIO,
        RETRAIN | {"lr": {"log_uniform": [1e-5, 1e-3]}, "distill": {"uniform": [0, 1]}},
        {
            "choice": [
                None,
                {"kind": "retrain", "steps": {"int_range": [10, 50]}, "train": "decoder"},
            ]
        },
        QUANTIZE,
    )
    first, second = space.retraining()
    assert (first.steps, first.distill, second.steps) == (1000, 0.5, 50)
    assert first.lr == pytest.approx(1e-4)
    assert second.train == ("decoder",)
    assert space.control() == Policy(steps=(first, second))
    assert all(isinstance(step, Retrain) for step in space.control().steps)


def test_a_bound_space_keeps_each_kind_of_domain() -> None:
    space = bound(
        {"kind": "drop_layers", "layers": "decoder.layers", "keep": {"int_range": [1, 3]}}
    )
    assert space.parameters == {"steps.0.drop_layers.keep": IntRange(1, 3)}
