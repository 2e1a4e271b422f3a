"""Seconds add up by stage, whatever happens in them."""

from __future__ import annotations

import pytest

from autocomp.clock import Clock


def test_seconds_add_up_by_stage() -> None:
    clock = Clock()
    for stage in ("lower", "measure", "lower"):
        with clock(stage):
            pass
    assert list(clock.seconds) == ["lower", "measure"]
    assert all(seconds >= 0 for seconds in clock.seconds.values())


def test_a_stage_that_fails_took_its_time_too() -> None:
    clock = Clock()
    with pytest.raises(KeyError), clock("apply"):
        raise KeyError
    assert set(clock.seconds) == {"apply"}
