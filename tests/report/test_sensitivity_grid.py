"""Readings become a grid: rows in the model's order, the mildest column first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from autocomp.errors import StudyError
from autocomp.policy import NOTHING
from autocomp.report.heatmap import plot_heat_map
from autocomp.report.sensitivity import HEADINGS, grid, sensitivity_table
from autocomp.space.metrics import METRICS
from autocomp.space.objectives import parse_objectives
from autocomp.space.steps import fields_by_unit
from autocomp.study.sensitivity import Reading, Sensitivity

CIDER = parse_objectives({"size_mb": "minimize", "cider": "maximize"}, METRICS, [])


def reading(layer: str, kind: str, value: float, cider: float | None) -> Reading:
    return Reading(
        layer=layer,
        kind=kind,
        value=value,
        policy_id=f"{layer}{value}",
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


def test_shares_are_of_dense_and_unknown_where_nothing_was_measured() -> None:
    found = grid(made(), CIDER)
    assert found.metric == "cider"
    assert found.headings == ("8 bits", "4 bits", "-25% channels", "-50% channels")
    assert found.shares["a"] == {
        "-50% channels": 0.5,
        "-25% channels": 1.0,
        "4 bits": 0.9,
        "8 bits": 1.0,
    }
    assert found.shares["b"] == {"8 bits": pytest.approx(0.1)}
    assert found.shares["c"] == {}


def test_the_table_begins_with_what_suffers_most() -> None:
    table = sensitivity_table(grid(made(), CIDER))
    assert [row["layer"] for row in table.rows] == ["b", "a", "c"]
    assert table.rows[0]["8 bits"] == "10%"
    assert table.rows[0]["4 bits"] == ""


@pytest.mark.parametrize(
    ("objectives", "dense", "rule"),
    [
        ({"size_mb": "minimize"}, 0.5, "a quality to maximise"),
        ({"cider": "maximize"}, 0, "above 0"),
    ],
    ids=["no quality", "no share of nothing"],
)
def test_nothing_to_compare_is_said(objectives: dict[str, Any], dense: float, rule: str) -> None:
    with pytest.raises(StudyError, match=rule):
        grid(made(dense), parse_objectives(objectives, METRICS, []))


def test_every_step_that_is_searched_by_layer_has_a_heading() -> None:
    assert set(HEADINGS) == {kind for kind in NOTHING if fields_by_unit(kind)}


def test_the_picture_grows_with_its_rows(tmp_path: Path) -> None:
    plot_heat_map(tmp_path / "small.png", grid(made(), CIDER), "made")
    with Image.open(tmp_path / "small.png") as picture:
        assert picture.size[0] > 500
        colours = picture.convert("RGB").getcolors(10**6)
    assert colours is not None
    assert len(colours) > 10
