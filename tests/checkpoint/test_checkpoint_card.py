from __future__ import annotations

from pathlib import Path

import pytest

from autocomp.checkpoint.card import write_card
from autocomp.checkpoint.folder import CARD
from autocomp.policy import Policy, Quantize
from autocomp.targets import TargetSettings

POLICY = Policy(steps=(Quantize(layers="**", bits=8),))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (TargetSettings(), "onnxruntime with 1 thread and batch size 1."),
        (TargetSettings(threads=4, batch_size=8), "onnxruntime with 4 threads and batch size 8."),
    ],
    ids=["default", "wide"],
)
def test_the_card_says_where_it_was_measured(
    tmp_path: Path, target: TargetSettings, said: str
) -> None:
    write_card(tmp_path, POLICY, target, {"size_mb": 1.5, "cider": 0.5}, {"size_mb": 6.0}, ())
    text = (tmp_path / CARD).read_text()
    assert said in text
    assert "| size_mb | 1.5 MB | 6 MB |\n| cider | 0.5 |  |" in text
    assert "What was not done" not in text


def test_the_card_says_what_was_not_done(tmp_path: Path) -> None:
    write_card(tmp_path, POLICY, TargetSettings(), {}, {}, ["head: held at 32 bits"])
    assert "## What was not done\n\n- head: held at 32 bits\n" in (tmp_path / CARD).read_text()
