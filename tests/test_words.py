"""Every step has its words."""

from __future__ import annotations

from typing import Any

import pytest

from autocomp.policy import STEPS, Policy
from autocomp.words import PHRASES, describe


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            {"kind": "prune_channels", "layers": "encoder.*", "ratio": 0.5, "criterion": "taylor"},
            "remove 50% of the channels of encoder.* (taylor)",
        ),
        (
            {"kind": "prune_channels", "layers": "encoder", "ratio": {"a": 0.1, "b": 0.35}},
            "remove 10% to 35% of the channels of encoder (l2)",
        ),
        (
            {"kind": "prune_heads", "layers": "**", "ratio": {"a": 0.5}},
            "remove 50% of the heads of everything (l2)",
        ),
        (
            {"kind": "prune_width", "layers": ["a", "b"], "ratio": 0.25},
            "remove 25% of the hidden units of a and b (l2)",
        ),
        (
            {"kind": "prune_width", "layers": "a", "ratio": {}},
            "remove 0% of the hidden units of a (l2)",
        ),
        (
            {"kind": "drop_layers", "layers": "decoder.layers", "keep": 2},
            "keep 2 of decoder.layers (uniform)",
        ),
        (
            {"kind": "retrain", "steps": 300, "lr": 3e-4},
            "retrain 300 steps at 0.0003",
        ),
        (
            {"kind": "retrain", "steps": 9, "lr": 1e-3, "distill": 0.5, "hidden": 0.1},
            "retrain 9 steps at 0.001, 50% of the loss from the dense model's logits, "
            "hidden states pulled towards the dense model's (0.1)",
        ),
        (
            {"kind": "quantize", "layers": "**", "bits": 8},
            "store the weights of everything at 8 bits",
        ),
        (
            {"kind": "quantize", "layers": "a", "bits": {"a": 32, "b": 4, "c": 4}},
            "store the weights of a at 4 and 32 bits",
        ),
        (
            {"kind": "quantize", "layers": "a", "bits": {}},
            "store the weights of a at 32 bits",
        ),
        (
            {"kind": "quantize", "layers": "a", "bits": 3, "rounding": "compensated"}
            | {"scheme": "affine", "granularity": "tensor", "activation_bits": 32},
            "store the weights of a at 3 bits, with zero points of their own, a scale a tensor, "
            "rounding compensated, computed in fp32",
        ),
        (
            {"kind": "quantize", "layers": "a", "bits": {"a": 16, "b": 32}}
            | {"rounding": "compensated", "scheme": "affine", "granularity": "tensor"},
            "store the weights of a at 16 and 32 bits",
        ),
        (
            {"kind": "fixed_point", "layers": "a", "bits": 8, "method": "log"},
            "hold a in fixed point (log): parameters at 8 bits, activations at 32, BatchNorm "
            "statistics at 32",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value["kind"],
)
def test_a_step_in_words(step: dict[str, Any], words: str) -> None:
    assert describe(Policy.model_validate({"steps": [step]})) == [words]


def test_gamma_l1_in_words() -> None:
    policy = Policy.model_validate(
        {
            "steps": [
                {"kind": "gamma_l1", "layers": "encoder", "strength": 1e-4},
                {"kind": "retrain", "steps": 5},
            ]
        }
    )
    words = "shrink the BatchNorm scales of encoder by 0.0001 while training"
    assert describe(policy)[0] == words


def test_a_policy_without_steps_is_the_dense_model() -> None:
    assert describe(Policy()) == ["dense, nothing changed"]


def test_every_step_has_words() -> None:
    assert set(PHRASES) == set(STEPS)
