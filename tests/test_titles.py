from __future__ import annotations

import pytest

from autocomp.policy import Policy
from autocomp.space.metrics import METRICS
from autocomp.titles import (
    LESS_AND_MORE,
    MEANINGS,
    changing,
    compared,
    in_short,
    name_and_unit,
    number,
    title,
)

HALF = {"kind": "prune_channels", "layers": "encoder", "ratio": 0.5}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (5.4e-10, "0.00"),
        (0.12345, "0.123"),
        (0.9, "0.900"),
        (21.34, "21.3"),
        (213.4, "213"),
        (999.4, "999"),
        (999.6, "1000"),
        (-999.6, "-1000"),
        (1135.8, "1136"),
        (276504.0, "276504"),
        (3.456e6, "3.46M"),
        (999.6e6, "1000M"),
        (1.2e9, "1.2G"),
        (-2.5e6, "-2.5M"),
    ],
)
def test_a_number_is_as_long_as_it_needs_to_be(value, text):
    assert number(value) == text


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_a_title_with_its_unit(metric):
    text = title(metric)
    assert "_" not in text
    unit = {"mb": "(MB)", "ms": "(ms)"}.get(metric.rsplit("_", 1)[-1])
    assert unit is None or unit in text


@pytest.mark.parametrize(
    ("metric", "told"),
    [("size_mb", ("size", "MB")), ("cider", ("CIDEr", "")), ("own_thing", ("own thing", ""))],
)
def test_a_name_and_its_unit_come_apart(metric, told):
    assert name_and_unit(metric) == told


@pytest.mark.parametrize(
    ("metric", "value", "dense", "text"),
    [
        ("cider", 0.48, 0.5, "96.0% of dense"),
        ("cider", 0.55, 0.5, "110.0% of dense"),
        ("cider", 0.1, 0.0, ""),
        ("cider", 0.1, None, ""),
        ("size_mb", 2.0, 9.8, "4.9x smaller"),
        ("size_mb", 9.8, 2.0, "4.9x larger"),
        ("size_mb", 0.0, 2.0, ""),
        ("latency_ms", 0.97, 1.0, "3% faster"),
        ("latency_ms", 1.05, 1.0, "5% slower"),
        ("latency_ms", 1.004, 1.0, "the same"),
        ("macs", 1e6, 3e6, "3.0x fewer"),
        ("mean_tokens", 9.0, 10.0, ""),
    ],
)
def test_a_metric_is_told_beside_the_dense_models(metric, value, dense, text):
    assert compared(metric, value, dense) == text


def test_every_metric_has_a_meaning():
    assert MEANINGS.keys() == METRICS.keys()


def test_less_is_better_of_whatever_may_be_less():
    assert all(METRICS[metric] == "minimize" for metric in LESS_AND_MORE)


FOUR = {"kind": "quantize", "layers": "**", "bits": 4}
EIGHT_FOUR = (("encoder", 8), ("encoder.head", 8), ("decoder", 4))


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([], "nothing changed"),
        ([HALF], "50% fewer channels"),
        ([{**HALF, "ratio": {"encoder.0": 0.1, "encoder.1": 0.62}}], "10..62% fewer channels"),
        ([{**HALF, "ratio": {"encoder.0": 0.0, "encoder.1": 0.0}}], "nothing changed"),
        ([{**HALF, "kind": "prune_width", "ratio": 0.0}], "nothing changed"),
        ([{**HALF, "kind": "prune_heads"}], "50% fewer heads"),
        (
            [{"kind": "drop_layers", "layers": "decoder.layers", "keep": 2}],
            "keep 2 of decoder.layers",
        ),
        (
            [{"kind": "gamma_l1", "layers": "**"}, {"kind": "retrain", "steps": 9}],
            "gamma L1, retrain 9",
        ),
        ([{"kind": "quantize", "layers": "**", "bits": 4}], "4 bits"),
        ([{"kind": "quantize", "layers": "**", "bits": 32}], "nothing changed"),
        (
            [
                {"kind": "quantize", "layers": "**", "bits": 3, "qat": True},
                {"kind": "retrain", "steps": 0},
            ],
            "3 bits",
        ),
        (
            [
                {"kind": "quantize", "layers": "**", "bits": 3, "qat": True},
                {"kind": "retrain", "steps": 0},
                {"kind": "quantize", "layers": "head", "bits": 2, "qat": True},
                {"kind": "retrain", "steps": 9},
            ],
            "3 bits, head 2 bits trained, retrain 9",
        ),
        ([{"kind": "fixed_point", "layers": "**", "bits": 6}], "fixed point 6 bits (linear)"),
        ([FOUR | {"rounding": "compensated", "scheme": "affine"}], "4 bits compensated affine"),
        ([FOUR | {"granularity": "channel"}], "4 bits by channel"),
        ([FOUR | {"activation_bits": 32}], "4 bits weights alone"),
        ([FOUR | {"ranges": "mse"}], "4 bits mse ranges"),
        (
            [{"kind": "fixed_point", "layers": "**", "bits": 32, "batch_norm_bits": 8}],
            "fixed point 32 bits (linear, norms 8)",
        ),
        (
            [{"kind": "fixed_point", "layers": "**", "bits": 32, "activation_bits": 8}],
            "fixed point 32 bits (linear, activations 8)",
        ),
        (
            [{"kind": "fixed_point", "layers": "**", "bits": 32}],
            "nothing changed",
        ),
        (
            [{"kind": "quantize", "layers": "**", "bits": {"encoder": 32, "decoder": 4}}],
            "4/32 bits",
        ),
        (
            [{"kind": "quantize", "layers": name, "bits": bits} for name, bits in EIGHT_FOUR],
            "encoder 8 bits, head 8 bits, decoder 4 bits",
        ),
        ([FOUR | {"layers": ["a.blocks.4", "b.*.ffn", "[cd]"]}], "blocks.4+ffn+[cd] 4 bits"),
        ([FOUR | {"layers": "*", "group_size": 64}], "4 bits by 64"),
        ([FOUR | {"granularity": "tensor", "group_size": 64}], "4 bits by tensor"),
        (
            [{"kind": "fixed_point", "layers": "decoder", "bits": 6}],
            "decoder fixed point 6 bits (linear)",
        ),
    ],
)
def test_a_policy_is_told_in_a_few_words(steps, text):
    assert in_short(Policy.model_validate({"steps": steps})) == text


@pytest.mark.parametrize(
    ("metric", "name", "unit"),
    [("size_mb", "size", "MB"), ("cider", "CIDEr", ""), ("a_metric", "a metric", "")],
)
def test_a_name_stands_apart_from_its_unit(metric, name, unit):
    assert name_and_unit(metric) == (name, unit)


def test_steps_that_change_nothing_are_left_out():
    idle = [HALF | {"ratio": 0.0}, {"kind": "quantize", "layers": "**", "bits": 32}]
    policy = Policy.model_validate({"steps": [idle[0], HALF, idle[1]]})
    assert changing(policy) == Policy.model_validate({"steps": [HALF]})
    assert changing(Policy.model_validate({"steps": idle})) == Policy()
