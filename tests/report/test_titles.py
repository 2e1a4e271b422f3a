from __future__ import annotations

import pytest

from autocomp.policy import Policy
from autocomp.report.titles import changing, in_short, name_and_unit, number, title
from autocomp.space.metrics import METRICS

HALF = {"kind": "prune_channels", "layers": "encoder", "ratio": 0.5}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (0.12345, "0.123"),
        (0.9, "0.900"),
        (21.34, "21.3"),
        (213.4, "213"),
        (1135.8, "1136"),
        (276504.0, "276504"),
        (3.456e6, "3.46M"),
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
            [{"kind": "quantize", "layers": "**", "bits": {"encoder": 32, "decoder": 4}}],
            "4/32 bits",
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
