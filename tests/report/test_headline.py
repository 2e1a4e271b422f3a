from __future__ import annotations

import pytest
from fronts import CONTROL, DENSE, drawn_study, made_front

from autocomp.report.headline import SHARES, headline


@pytest.mark.parametrize("seed", range(4))
def test_offers_the_best_that_is_good_enough(seed: int):
    front, _ = drawn_study(seed=seed)
    found = headline(front, ["autocomp", "export", "results/my study"], "my study")
    assert [one["percent"] for one in found["shares"]] == list(SHARES)
    for share in found["shares"]:
        limit = CONTROL["cider"] * share["percent"] / 100
        assert share["at_least"] == pytest.approx(limit)
        good = [one for one in front.members if one.trial > 1 and one.metrics["cider"] >= limit]
        for choice in share["choices"]:
            values = {one.trial: one.metrics[choice["metric"]] for one in good}
            assert values.get(choice["trial"]) == min(values.values(), default=None)
            if choice["trial"] is not None:
                assert choice["command"] == (
                    f"autocomp export 'results/my study' --trial {choice['trial']} "
                    f"--out 'my study-{choice['trial']}'"
                )


def test_nothing_good_enough_is_said():
    small = {"cider": 0.1, "size_mb": 2.0, "latency_ms": 7.0}
    found = headline(made_front({5: small}), ["export", "x"], "x")
    assert found["shares"][0]["choices"] == [
        {"metric": "size_mb", "trial": None, "command": None},
        {"metric": "latency_ms", "trial": None, "command": None},
    ]


@pytest.mark.parametrize(
    ("objectives", "dense", "why"),
    [
        ({"size_mb": "minimize"}, DENSE, "no quality to maximise"),
        ({"cider": "maximize"}, DENSE, "no quality to maximise beside a cost"),
        ({"cider": "maximize", "size_mb": "minimize"}, None, "no cider of the dense model"),
        (
            {"cider": "maximize", "size_mb": "minimize"},
            DENSE | {"cider": 0.0},
            "no cider of the dense model",
        ),
    ],
    ids=["no quality", "no cost", "no dense", "worthless dense"],
)
def test_says_why_there_is_nothing_to_compare(objectives, dense, why):
    front = made_front({5: DENSE}, objectives, dense=dense, control=dense)
    assert why in headline(front, ["export", "x"], "x")["missing"]
