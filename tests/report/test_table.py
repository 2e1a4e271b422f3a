from __future__ import annotations

from dataclasses import replace

from fronts import CONTROL, DENSE, drawn_study, made_front

from autocomp.evaluate.bootstrap import Paired
from autocomp.report.table import front_table

SMALL = {"cider": 0.54, "size_mb": 2.0, "latency_ms": 7.0}
GOOD = {"cider": 0.59, "size_mb": 7.0, "latency_ms": 14.0}


def test_every_row_has_a_text_for_every_column():
    for study in (drawn_study()[0], made_front({0: DENSE}), made_front({}, control=None)):
        table = front_table(study)
        assert all(row.keys() == table.columns.keys() for row in table.rows)
        assert all(isinstance(text, str) for row in table.rows for text in row.values())


def test_a_control_that_is_the_dense_model_is_called_so():
    table = front_table(made_front({0: DENSE}, control=DENSE))
    assert table.rows[1]["policy"] == "dense: nothing is retrained"


def test_dense_and_control_come_first_then_the_best_quality():
    table = front_table(made_front({0: DENSE, 5: SMALL, 9: GOOD}))
    assert [row["trial"] for row in table.rows] == ["0", "(1)", "9", "5"]
    assert [row["policy"] for row in table.rows] == [
        "dense",
        "dense, retrained",
        "retrain 9",
        "retrain 5",
    ]


def test_every_objective_stands_beside_the_better_of_dense_and_control():
    table = front_table(made_front({0: DENSE, 5: SMALL}))
    assert table.columns == {
        "trial": "trial",
        "cider": "CIDEr",
        "cider/dense": "of dense",
        "size_mb": "size (MB)",
        "size_mb/dense": "less",
        "latency_ms": "latency (ms)",
        "latency_ms/dense": "less",
        "policy": "policy",
    }
    assert table.rows[-1] == {
        "trial": "5",
        "cider": "0.540",
        "cider/dense": "85.7%",
        "size_mb": "2.00",
        "size_mb/dense": "7.0x",
        "latency_ms": "7.00",
        "latency_ms/dense": "3.0x",
        "policy": "retrain 5",
    }


def test_the_share_of_a_quality_stands_beside_its_interval():
    intervals = {
        1: {"cider": {"dense": Paired((0.01, 0.05), (1.02, 1.08))}},
        5: {"cider": {"control": Paired((-0.12, -0.06), (0.812, 0.904))}},
    }
    front = replace(made_front({0: DENSE, 5: SMALL}), intervals=intervals)
    table = front_table(front)
    assert list(table.columns)[1:4] == ["cider", "cider/dense", "cider/interval"]
    assert table.columns["cider/interval"] == "95% interval"
    assert [row["cider/interval"] for row in table.rows] == ["", "", "81.2..90.4%"]


def test_a_metric_that_is_only_bounded_has_a_column_of_its_own():
    objectives = {"cider": "maximize", "params": {"at_most": 5e6}}
    table = front_table(made_front({0: DENSE}, objectives))
    assert list(table.columns) == ["trial", "cider", "cider/dense", "params", "policy"]
    assert table.rows[0]["params"] == "3.4M"


def test_without_a_dense_model_nothing_is_compared():
    table = front_table(made_front({5: SMALL}, dense=None, control=None))
    (row,) = table.rows
    assert (row["cider"], row["cider/dense"]) == ("0.540", "")


def test_a_worthless_dense_model_is_no_measure():
    nothing = {"cider": 0.0}
    front = made_front({5: SMALL}, dense=DENSE | nothing, control=CONTROL | nothing)
    table = front_table(front)
    assert table.rows[-1]["cider/dense"] == ""
