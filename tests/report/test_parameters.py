from __future__ import annotations

from pathlib import Path

import pytest

from autocomp.report.parameters import in_words, parameters, told_apart
from autocomp.study.journal import read_journal
from autocomp.study.study import Study


@pytest.mark.parametrize(
    ("name", "what", "where"),
    [
        ("steps.4.retrain.lr", "retrain lr", ""),
        ("steps.2.prune_width.ratio[decoder.layers.1]", "prune_width ratio", "decoder.layers.1"),
        ("steps.1.quantize.bits[a[0].b]", "quantize bits", "a[0].b"),
        ("a name of its own", "a name of its own", ""),
    ],
    ids=["whole step", "block", "brackets", "foreign"],
)
def test_a_parameter_in_words(name: str, what: str, where: str):
    assert in_words(name) == {"what": what, "where": where}


def test_two_of_one_kind_are_told_apart_by_their_steps():
    names = ["steps.2.retrain.lr", "steps.3.quantize.bits[a]", "steps.5.retrain.lr", "mine"]
    assert [one["where"] for one in told_apart(names)] == ["steps.2", "a", "steps.5", ""]


def test_every_objective_has_every_parameter(whole: Path):
    found = parameters(Study.load(whole), read_journal(whole / "journal.log").told)
    assert list(found["objectives"]) == ["cider", "size_mb", "latency_ms"]
    for listed in found["objectives"].values():
        assert {one["what"] for one in listed} == {
            "prune_width ratio",
            "retrain steps",
            "quantize bits",
        }
        assert sum(one["share"] for one in listed) == pytest.approx(1.0)
