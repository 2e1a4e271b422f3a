"""What a trial leaves behind, whoever ran it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from autocomp.decisions import Decision

Status = Literal["complete", "stopped", "failed"]


class TrialResult(Decision):
    """The outcome of carrying out one policy.

    `metrics` is empty unless the trial is complete, except for what was known when it stopped.
    `reason` says why a trial stopped or failed; `skipped` what could not be done, and why;
    `seconds` how long each stage took.
    """

    number: int = Field(ge=0)
    policy_id: str
    status: Status
    reason: str | None = None
    metrics: dict[str, float] = {}
    skipped: tuple[str, ...] = ()
    seconds: dict[str, float] = {}
    seed: int = 0
    versions: dict[str, str] = {}
