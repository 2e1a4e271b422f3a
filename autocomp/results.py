"""What a trial leaves behind, whoever ran it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from autocomp.decisions import Decision

Status = Literal["complete", "stopped", "failed"]

DENSE_TRIAL, CONTROL_TRIAL = 0, 1
"""Every study begins with the dense model, then the dense model retrained."""

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "failed to allocate", "bad_alloc")
"""How torch (CUDA and CPU), ONNX Runtime and the C++ library say that memory ran out."""


class TrialResult(Decision):
    """The outcome of carrying out one policy.

    `metrics` is empty unless the trial is complete, except for what was known when it stopped.
    `reason` says why a trial stopped or failed; `skipped` what could not be done, and why;
    `seconds` how long each stage took; a trial whose process died tells neither.
    """

    number: int = Field(ge=0)
    policy_id: str
    status: Status
    reason: str | None = None
    metrics: dict[str, float] = {}
    skipped: tuple[str, ...] = ()
    seconds: dict[str, float] = {}
    seed: int | None = None
    versions: dict[str, str] = {}


def reason_of(failure: BaseException) -> str:
    """One line that says what went wrong: "TypeName: message", or "out of memory: message"."""
    message = one_line(str(failure))
    named = isinstance(failure, MemoryError) or any(
        sign in message.lower() for sign in OUT_OF_MEMORY
    )
    kind = "out of memory" if named else type(failure).__name__
    return f"{kind}: {message}" if message else kind


def one_line(text: str, longest: int = 300) -> str:
    """`text` without line breaks, cut to `longest` characters."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


def checked(result: TrialResult, wanted: Sequence[str], seed: int) -> TrialResult:
    """The result with the study's seed if it has none of its own.

    One that has a metric which is not finite, or is complete without all that are `wanted`, failed.
    """
    known: dict[str, Any] = {} if result.seed is not None else {"seed": seed}
    finite = {name: value for name, value in result.metrics.items() if math.isfinite(value)}
    strange = [name for name in result.metrics if name not in finite]
    missing = [name for name in wanted if name not in finite]
    if strange:
        reason = f"metrics: must be finite, but {', '.join(strange)} are not"
        known |= {"status": "failed", "reason": reason, "metrics": finite}
    elif missing and result.status == "complete":
        reason = f"metrics: must have every objective, but lack {', '.join(missing)}"
        known |= {"status": "failed", "reason": reason}
    return result.model_copy(update=known)
