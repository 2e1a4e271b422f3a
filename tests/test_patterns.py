from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocomp.fields import value_for
from autocomp.patterns import matches, matching, unit_of

NAMES = [
    "encoder.backbone.conv_stem",
    "encoder.backbone.blocks.0.0.conv_dw",
    "encoder.backbone.blocks.0.1.conv_dw",
    "encoder.backbone.blocks.1.0.conv_pw",
    "encoder.layers.0.ffn.up",
    "decoder.embedding",
    "decoder.layers.0.self_attention.q",
    "decoder.layers.10.self_attention.q",
]


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        pytest.param("decoder.layers.0.ffn", "**", True, id="everything"),
        pytest.param("decoder.layers.0.ffn", "decoder.*", True, id="star-crosses-dots"),
        pytest.param("decoder.layers.0.ffn", "decoder", True, id="parent"),
        pytest.param("decoder.layers.0.ffn", "decoder.layers.0", True, id="near-parent"),
        pytest.param("decoder.layers.10.ffn", "decoder.layers.1", False, id="not-a-prefix-of-text"),
        pytest.param("decoder", "decoder.*", False, id="star-needs-a-child"),
        pytest.param("decoder.layers.0.ffn", "decoder.layers.[01]", True, id="set-as-parent"),
        pytest.param("decoder.head", "*.HEAD", False, id="case-matters"),
    ],
)
def test_a_pattern_means_a_module_and_what_is_below_it(
    name: str, pattern: str, expected: bool
) -> None:
    assert matches(name, pattern) is expected


def test_matching_keeps_the_order_and_drops_what_is_excluded() -> None:
    found = matching(NAMES, ["decoder", "encoder.backbone"], ["*.conv_dw"])
    assert found == [NAMES[0], NAMES[3], *NAMES[5:]]


def test_no_pattern_matches_nothing() -> None:
    assert matching(NAMES, []) == []


@pytest.mark.parametrize(
    ("name", "block", "stage"),
    [
        ("layer1.0.conv1", "layer1.0", "layer1"),
        ("encoder.backbone.blocks.2.1.conv", "encoder.backbone.blocks.2.1", None),
        ("decoder.layers.0.cross_attention.q", "decoder.layers.0", "decoder.layers"),
        ("decoder.embedding", "decoder.embedding", "decoder.embedding"),
        ("0.conv", "0", "0"),
        ("3.1.conv", "3.1", "3"),
        ("features.1.conv.0.0", "features.1", "features"),
    ],
)
def test_units_of_common_models(name: str, block: str, stage: str | None) -> None:
    assert unit_of(name, "layer") == name
    assert unit_of(name, "block") == block
    assert unit_of(name, "stage") == (stage or "encoder.backbone.blocks.2")


@given(
    st.lists(st.sampled_from(["blocks", "conv", "0", "1", "12"]), min_size=1, max_size=6),
    st.sampled_from(["layer", "block", "stage"]),
)
def test_a_unit_is_the_module_or_holds_it(parts: list[str], per: str) -> None:
    name = ".".join(parts)
    unit = unit_of(name, per)  # type: ignore[arg-type]
    assert unit
    assert f"{name}.".startswith(f"{unit}.")


@pytest.mark.parametrize("per", ["layer", "block", "stage"])
def test_each_layer_gets_the_value_of_its_own_unit(per: str) -> None:
    units = list(dict.fromkeys(unit_of(name, per) for name in NAMES))  # type: ignore[arg-type]
    values = {unit: index / 100 for index, unit in enumerate(units)}
    for name in NAMES:
        assert value_for(name, values, -1.0) == values[unit_of(name, per)]  # type: ignore[arg-type]
