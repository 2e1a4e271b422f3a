from __future__ import annotations

import pytest
import torch
from search_toys import toy_metrics, toy_run

from autocomp.errors import TrialStopped
from autocomp.policy import Policy, Quantize
from autocomp.results import TrialResult
from autocomp.study.runners import InProcessRunner, ReplayRunner, guarded

POLICY = Policy(steps=(Quantize(layers="decoder.head", bits=8),))


def raising(failure: BaseException):
    def run(number: int, policy: Policy) -> TrialResult:
        raise failure

    return run


@pytest.mark.parametrize(
    ("failure", "status", "reason"),
    [
        (KeyError("x"), "failed", "KeyError: 'x'"),
        (RuntimeError("one\n  two"), "failed", "RuntimeError: one two"),
        (AssertionError(), "failed", "AssertionError"),
        (TrialStopped("loss is NaN"), "stopped", "loss is NaN"),
        (MemoryError(), "failed", "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory."), "failed", "out of memory: CUDA out of"),
    ],
    ids=["key", "two-lines", "no-message", "stopped", "memory", "cuda"],
)
def test_an_exception_becomes_a_result(tmp_path, failure, status, reason):
    result = guarded(raising(failure), 17, POLICY, tmp_path)
    assert (result.number, result.policy_id) == (17, POLICY.id)
    assert result.status == status
    assert result.reason.startswith(reason)
    log = tmp_path / "trials" / "00017" / "log.txt"
    assert log.exists() == (status == "failed")
    if status == "failed":
        assert "Traceback" in log.read_text()
        assert type(failure).__name__ in log.read_text()


def test_a_refused_allocation_of_torch_is_out_of_memory():
    result = guarded(lambda number, policy: torch.empty(2**55), 0, POLICY)
    assert result.status == "failed"
    assert result.reason.startswith("out of memory: ")


def test_keyboard_interrupt_passes_through():
    with pytest.raises(KeyboardInterrupt):
        guarded(raising(KeyboardInterrupt()), 0, POLICY)


def test_in_process_runs_in_order():
    runner = InProcessRunner(toy_run)
    runner.submit(3, POLICY)
    runner.submit(4, Policy())
    assert [runner.next_result().number, runner.next_result().number] == [3, 4]


def test_replay_answers_from_its_table():
    runner = ReplayRunner({POLICY.id: toy_run(99, POLICY)})
    runner.submit(5, POLICY)
    runner.submit(6, Policy())
    found, missing = runner.next_result(), runner.next_result()
    assert (found.number, found.metrics) == (5, toy_metrics(POLICY))
    assert (missing.number, missing.status) == (6, "failed")
    assert missing.reason.startswith("LookupError: policy")
