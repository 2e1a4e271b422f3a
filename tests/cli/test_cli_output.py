"""How numbers, durations and progress are put into words."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from autocomp.cli.output import NUMBER, duration, shown
from autocomp.cli.progress import LiveSearch, outcome, plain_training, standing
from autocomp.results import TrialResult
from autocomp.study.loop import SearchEvent


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (5.4e-10, "0 s"),
        (0.25, "0.2 s"),
        (1, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3599, "1 h 0 min"),
        (4000, "1 h 7 min"),
        (100_000, "1 d 3 h"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.123456, "0.1235"),
        (5.4e-10, "0.0000"),
        (0.0, "0"),
        (1234567.0, "1,234,567"),
        (17, "17"),
        ("words", "words"),
        (float("nan"), "nan"),
    ],
)
def test_shown(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("text", ["", "0.97", "97%", "4.1x", "(0)", "1.2M", "1e-05", "1,234"])
def test_numbers_go_to_the_right(text: str) -> None:
    assert NUMBER.fullmatch(text)


@pytest.mark.parametrize("text", ["dense", "2 of decoder.layers", "agrees"])
def test_words_go_to_the_left(text: str) -> None:
    assert not NUMBER.fullmatch(text)


COMPLETE = TrialResult(
    number=7, policy_id="x", status="complete", metrics={"cider": 0.81234, "size_mb": 1.0}
)
FAILED = TrialResult(number=8, policy_id="y", status="failed", reason="out of memory")


def event(result: TrialResult | None, left: float | None = 120.0) -> SearchEvent:
    return SearchEvent(
        done=8,
        total=20,
        front_size=3,
        hypervolume=0.25,
        result=result,
        seconds_left=left,
        overhead_s=0.0,
        exhausted=False,
    )


def test_outcome() -> None:
    assert outcome(COMPLETE, ["size_mb", "cider"]) == "trial 7: size_mb 1, cider 0.8123"
    assert outcome(FAILED, ["cider"]) == "trial 8 failed: out of memory"


def test_standing() -> None:
    assert standing(event(None)) == "8 of 20 trials, front 3, hypervolume 0.250, 2 min left"
    assert standing(event(None, left=None)) == "8 of 20 trials, front 3, hypervolume 0.250"


def test_training_in_a_log_is_ten_lines(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("autocomp")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, "autocomp"):
            for step in range(1, 501):
                plain_training(step, 500, 1.0)
    finally:
        logger.removeHandler(caplog.handler)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("dense model: step 1 of 500")
    assert lines[-1].startswith("dense model: step 500 of 500")
    assert len(set(lines)) == 11


def test_live_shows_the_last_result_and_the_bars() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        live = LiveSearch(progress, ["cider"])
        live.on_training(3, 9, 2.5)
        progress.refresh()
        live.on_event(event(FAILED))
        progress.refresh()
    text = screen.getvalue()
    assert "loss 2.500" in text
    assert "trial 8 failed: out of memory" in text
    assert "front 3, hypervolume 0.250, 2 min left" in text
    assert progress.tasks[0].visible is False
