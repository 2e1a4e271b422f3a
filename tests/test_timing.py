"""Time is of the artefact, over the same steps for both, and its parts add up to the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import Watched

from autocomp.checkpoint.folder import Checkpoint, open_checkpoint
from autocomp.targets import TargetSettings
from autocomp.targets.latency import summarise
from autocomp.timing import (
    Inference,
    Timing,
    is_time,
    own_latency_ms,
    part_metrics,
    sequential_graphs,
    time_beside,
    time_dense,
)

pytestmark = pytest.mark.usefixtures("tiny")
PARTS = ["read_ms", "encoder_ms", "decoder_step_ms", "rest_ms"]


@pytest.fixture(scope="module")
def dense(tiny_study: Path) -> Checkpoint:
    checkpoint = open_checkpoint(tiny_study / "dense")
    checkpoint.task.size("dev")
    return checkpoint


@pytest.mark.parametrize("batch_size", [1, 3])
def test_time_is_of_the_same_number_of_steps_for_both(batch_size: int, dense: Checkpoint) -> None:
    candidate, reference = Watched(dense.run), Watched(dense.run)
    raw = dense.task.raw_inputs("dev", 4)
    target = TargetSettings(batch_size=batch_size)
    pair = (Inference(dense.task, run, raw, target, 3) for run in (candidate, reference))
    timed = time_beside(*pair)
    assert candidate.batches == reference.batches == {batch_size}
    calls = candidate.calls.count("encoder")
    assert calls == reference.calls.count("encoder") > timed.latency.pairs
    assert candidate.calls.count("decoder") == 3 * calls
    assert 0.2 < timed.latency.ratio < 5
    assert list(timed.shares) == ["read", "encoder", "decoder", "rest"]
    assert sum(timed.shares.values()) == pytest.approx(1.0)
    assert all(share > 0 for share in timed.shares.values())


def test_an_inference_predicts_as_the_task_does(dense: Checkpoint) -> None:
    raw = dense.task.raw_inputs("dev", 3)
    call = Inference(dense.task, dense.run, raw, TargetSettings(batch_size=2), None)
    alone = [dense.predict(one) for one in raw]
    assert [call(), call(), call()] == [alone[:2], [alone[2], alone[0]], alone[1:]]


def test_shares_are_of_the_last_calls(dense: Checkpoint) -> None:
    call = Inference(dense.task, dense.run, dense.task.raw_inputs("dev", 1), TargetSettings(), 2)
    call()
    first = call.shares(1)
    call()
    assert call.shares(1) != first
    together = {name: (first[name] + call.shares(1)[name]) / 2 for name in first}
    assert call.shares(2) == pytest.approx(together)


@pytest.mark.parametrize("steps", [1, 4])
def test_parts_add_up_to_the_latency(steps: int) -> None:
    shares = {"read": 0.1, "encoder": 0.3, "decoder": 0.4, "rest": 0.2}
    timing = Timing(summarise([(1.0, 2.0), (1.1, 2.0)] * 5), shares)
    metrics = timing.metrics(20.0, {"decoder"}, steps)
    assert metrics["latency_ms"] == pytest.approx(20 * timing.latency.ratio)
    assert metrics["latency_p90_ms"] == pytest.approx(20 * timing.latency.ratio_p90)
    assert metrics["decoder_step_ms"] == pytest.approx(0.4 * metrics["latency_ms"] / steps)
    whole = sum(metrics[name] * (steps if "step" in name else 1) for name in PARTS)
    assert whole == pytest.approx(metrics["latency_ms"])
    assert all(is_time(name) for name in metrics)


def test_parts_are_named_after_the_graphs(dense: Checkpoint) -> None:
    assert part_metrics(dense.task) == PARTS
    assert sequential_graphs(dense.task) == {"decoder"}
    assert [name for name in dense.metrics if name in PARTS] == PARTS


def test_own_latency_ends_when_the_model_says_so(dense: Checkpoint) -> None:
    watched = Watched(dense.run)
    raw = dense.task.raw_inputs("dev", 2)
    alone, beside = (
        Inference(dense.task, run, raw, TargetSettings(), steps)
        for run, steps in ((watched, None), (dense.run, 16))
    )
    own_ms = own_latency_ms(alone, beside, 20.0)
    assert 0 < own_ms < 1.5 * 20.0  # of the time that 16 steps take, whatever the machine's load
    own = [dense.task.predict(dense.run, dense.task.read(one)) for one in raw]
    steps = [min(len(caption.split()) + 1, 16) for (caption,) in own]
    called = watched.calls.count("encoder")
    assert watched.calls.count("decoder") == sum(steps[i % 2] for i in range(called))


def test_more_steps_take_longer(dense: Checkpoint) -> None:
    task = dense.task
    raw = task.raw_inputs("dev", 2)
    timed = [time_dense(task, dense.run, raw, TargetSettings(), steps) for steps in (1, 12)]
    assert [one.latency.ratio for one, _ in timed] == [1.0, 1.0]
    assert 0 < timed[0][1] < timed[1][1]
    assert timed[0][0].shares["decoder"] < timed[1][0].shares["decoder"]


@pytest.mark.parametrize("name", ["size_mb", "cider", "mean_tokens", "peak_rss_mb"])
def test_what_is_no_time(name: str) -> None:
    assert not is_time(name)
