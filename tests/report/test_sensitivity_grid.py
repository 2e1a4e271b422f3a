"""Readings become a grid: rows in the model's order, the mildest column first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from autocomp.policy import NOTHING, Policy, Retrain
from autocomp.report.heatmap import plot_heat_map
from autocomp.report.sensitivity import grid, sensitivity_table
from autocomp.space.metrics import METRICS
from autocomp.space.objectives import parse_objectives
from autocomp.study.sensitivity import Reading, Sensitivity

CIDER = parse_objectives({"size_mb": "minimize", "cider": "maximize"}, METRICS, [])


def reading(layer: str, kind: str, value: float, cider: float | None, **settings: Any) -> Reading:
    step = {"kind": kind, "layers": [layer], NOTHING[kind][0]: {layer: value}, **settings}
    return Reading(
        layer=layer,
        kind=kind,
        field=NOTHING[kind][0],
        value=value,
        policy=Policy.model_validate({"steps": [step]}),
        status="failed" if cider is None else "complete",
        reason="it broke" if cider is None else None,
        skipped=(),
        metrics={} if cider is None else {"cider": cider},
    )


def made(dense: float = 0.5) -> Sensitivity:
    readings = (
        reading("a", "prune_channels", 0.5, 0.25),
        reading("a", "prune_channels", 0.25, 0.5),
        reading("a", "quantize", 4, 0.45),
        reading("a", "quantize", 8, 0.5),
        reading("b", "quantize", 8, 0.05),
        reading("c", "quantize", 8, None),
    )
    metrics = {"cider": dense, "size_mb": 1.0}
    return Sensitivity(space_id="", examples=9, dense=metrics, readings=readings, provenance={})


def test_what_did_less_than_it_says_is_told_once() -> None:
    rule = "convolutions have few inputs, and keep 8"
    kernel = "model: a.weight: 4 bits have no kernel that is fast"  # of each layer, as a rule
    readings = tuple(
        one.model_copy(update={"skipped": (f"steps.0.quantize: {one.layer}: {rule}", kernel)})
        if one.layer in "ab" and one.kind == "quantize"
        else one
        for one in made().readings
    )
    found = grid(made().model_copy(update={"readings": readings}), CIDER)
    assert found.reasons == (f"a, 4 bits and 2 more: {rule}", "c, 8 bits: failed: it broke")


def test_shares_are_of_dense_and_unknown_where_nothing_was_measured() -> None:
    found = grid(made(), CIDER)
    assert (found.told, found.training) == ("share of the dense model's CIDEr", "nothing retrained")
    assert found.headings == ("8 bits", "4 bits", "25% fewer channels", "50% fewer channels")
    assert found.left["a"] == {
        "50% fewer channels": 0.5,
        "25% fewer channels": 1.0,
        "4 bits": 0.9,
        "8 bits": 1.0,
    }
    assert found.left["b"] == {"8 bits": pytest.approx(0.1)}
    assert found.left["c"] == {}
    assert found.unread == {"a": {}, "b": {}, "c": {"8 bits": "failed"}}
    assert found.reasons == ("c, 8 bits: failed: it broke",)


def test_the_table_begins_with_what_is_unknown_and_then_what_suffers_most() -> None:
    table = sensitivity_table(grid(made(), CIDER))
    assert [row["layer"] for row in table.rows] == ["c", "b", "a"]
    assert [row["8 bits"] for row in table.rows] == ["failed", "10%", "100%"]
    assert [row["4 bits"] for row in table.rows] == ["", "", "90%"]


def test_a_reason_is_told_once() -> None:
    stopped = {"status": "stopped", "reason": "the loss\nbecame nan"}
    readings = tuple(
        reading(layer, "quantize", 8, None).model_copy(update=stopped) for layer in "abc"
    )
    found = grid(made().model_copy(update={"readings": readings}), CIDER)
    assert found.reasons == ("a, 8 bits and 2 more: stopped: the loss became nan",)
    assert {row["8 bits"] for row in sensitivity_table(found).rows} == {"stopped"}


@pytest.mark.parametrize(
    ("better", "dense", "values", "cells", "told"),
    [
        (
            "maximize",
            -2.0,
            {"a": -3.0, "b": -1.75, "c": -2.0},
            {"a": "-1", "c": "+0", "b": "+0.25"},
            "difference from the dense model's score",
        ),
        (
            "minimize",
            0.0,
            {"a": 0.0, "b": 0.125},
            {"b": "-0.125", "a": "+0"},
            "the dense model's score less this one's",
        ),
    ],
    ids=["a log-likelihood", "no error at all"],
)
def test_where_nothing_is_a_share_of_dense_there_are_differences(
    better: Any,
    dense: float,
    values: dict[str, float],
    cells: dict[str, str],
    told: str,
    tmp_path: Path,
) -> None:
    readings = tuple(
        reading(layer, "quantize", 8, 0).model_copy(update={"metrics": {"score": value}})
        for layer, value in values.items()
    )
    update = {"readings": readings, "dense": {"score": dense}}
    objectives = parse_objectives({"score": better}, {"score": better}, [])
    found = grid(made().model_copy(update=update), objectives)
    rows = sensitivity_table(found).rows
    assert {row["layer"]: row["8 bits"] for row in rows} == cells
    assert [row["layer"] for row in rows] == list(cells)  # the worst first
    assert found.told == told
    plot_heat_map(tmp_path / "map.png", found, "made")
    assert (tmp_path / "map.png").exists()


def test_what_failed_is_red_on_white_in_the_picture(tmp_path: Path) -> None:
    whole, failed = made(), made()
    whole = whole.model_copy(update={"readings": whole.readings[:-1]})
    reds = []
    for found in (whole, failed):
        plot_heat_map(tmp_path / "map.png", grid(found, CIDER), "made")
        with Image.open(tmp_path / "map.png") as picture:
            colours = picture.convert("RGB").getcolors(10**6) or []
        reds.append(sum(count for count, (r, g, b) in colours if r > 150 and max(g, b) < 100))
    assert reds[0] == 0 < reds[1]


def test_of_an_error_less_is_left_where_it_is_greater() -> None:
    errors = {"a": 1.0, "b": 0.5, "c": 0.0}
    readings = tuple(
        reading(layer, "quantize", 8, 0).model_copy(update={"metrics": {"error": error}})
        for layer, error in errors.items()
    )
    update = {"readings": readings, "dense": {"error": 0.5}}
    objectives = parse_objectives({"error": "minimize"}, {"error": "minimize"}, [])
    found = grid(made().model_copy(update=update), objectives)
    assert [row["8 bits"] for row in found.left.values()] == [0.5, 1.0, float("inf")]
    assert found.told == "the dense model's error as a share of this one's"
    assert [row["layer"] for row in sensitivity_table(found).rows] == ["a", "b", "c"]


def test_retraining_is_said_once() -> None:
    (pruned, *_), retrain = made().readings, Retrain(steps=5)
    policy = Policy(steps=(*pruned.policy.steps, retrain))
    readings = (pruned.model_copy(update={"policy": policy}),)
    found = grid(made().model_copy(update={"readings": readings, "retrain_steps": 5}), CIDER)
    assert found.headings == ("50% fewer channels",)
    assert found.training == "retrained for 5 steps"


def test_bits_of_activations_have_columns_of_their_own() -> None:
    """Each beside the others of its kind, the widest first."""
    readings = tuple(
        reading("a", "fixed_point", 32, 0.5, activation_bits=bits).model_copy(
            update={"field": "activation_bits", "value": bits}
        )
        for bits in (4, 8)
    )
    own = tuple(reading("a", "fixed_point", bits, 0.5) for bits in (6, 3))
    found = grid(made().model_copy(update={"readings": readings + own}), CIDER)
    assert found.headings == (
        "fixed point 6 bits (linear)",
        "fixed point 3 bits (linear)",
        "fixed point 32 bits (linear, activations 8)",
        "fixed point 32 bits (linear, activations 4)",
    )


def test_columns_of_one_width_say_what_differs() -> None:
    """Every one of these is 8 bits: none may stand for another."""
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "8 bits": ("quantize", {}),
        "8 bits affine": ("quantize", {"scheme": "affine"}),
        "8 bits compensated by channel": (
            "quantize",
            {"granularity": "channel", "rounding": "compensated"},
        ),
        "8 bits weights alone": ("quantize", {"activation_bits": 32}),
        "fixed point 8 bits (linear)": ("fixed_point", {"method": "linear"}),
        "fixed point 8 bits (tanh)": ("fixed_point", {"method": "tanh"}),
    }
    readings = tuple(
        reading(layer, kind, 8, share, **settings)
        for layer in ("a", "b")
        for share, (kind, settings) in enumerate(ways.values(), start=1)
    )
    found = grid(made(1).model_copy(update={"readings": readings}), CIDER)
    assert found.headings == tuple(ways)
    assert found.left["b"] == {name: share for share, name in enumerate(ways, start=1)}


def test_what_the_short_form_leaves_out_is_added() -> None:
    readings = (
        reading("a", "prune_channels", 0.5, 0.1, criterion="l2"),
        reading("a", "prune_channels", 0.5, 0.2, criterion="taylor"),
        reading("b", "quantize", 4, 0.3),
    )
    found = grid(made(1).model_copy(update={"readings": readings}), CIDER)
    assert found.left == {
        "a": {
            "50% fewer channels, criterion l2": 0.1,
            "50% fewer channels, criterion taylor": 0.2,
        },
        "b": {"4 bits": 0.3},
    }


def test_the_picture_grows_with_its_rows(tmp_path: Path) -> None:
    plot_heat_map(tmp_path / "small.png", grid(made(), CIDER), "made")
    with Image.open(tmp_path / "small.png") as picture:
        assert picture.size[0] > 500
        colours = picture.convert("RGB").getcolors(10**6)
    assert colours is not None
    assert len(colours) > 10
