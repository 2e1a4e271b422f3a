"""The model card: what the checkpoint is, how it was made, and how it measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from autocomp.checkpoint.folder import CARD
from autocomp.files import write_text
from autocomp.policy import Policy
from autocomp.targets import TargetSettings
from autocomp.words import describe

UNITS = {"mb": "MB", "ms": "ms"}
"""The ending of a metric's name -> its unit."""


def write_card(
    directory: Path,
    policy: Policy,
    target: TargetSettings,
    metrics: Mapping[str, float],
    dense: Mapping[str, float],
    skipped: Sequence[str],
) -> None:
    """Write README.md into the checkpoint's folder; `dense` are the dense model's metrics."""
    sections = [
        "# A model compressed by autocomp",
        "```\nautocomp caption . photo.jpg\nautocomp verify .\n```",
        "## How it was made",
        "\n".join(f"{number}. {phrase}" for number, phrase in enumerate(describe(policy), 1)),
        "## How it measured",
        f"Quality on the dev split; size, time and memory of these files in {_setting(target)}.",
        "| metric | value | dense |\n|---|---|---|\n"
        + "\n".join(
            f"| {name} | {_value(name, value)} | {_value(name, dense.get(name))} |"
            for name, value in metrics.items()
        ),
    ]
    if skipped:
        sections += ["## What was not done", "\n".join(f"- {line}" for line in skipped)]
    write_text(directory / CARD, "\n\n".join(sections) + "\n")


def _value(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g} {UNITS.get(name.rpartition('_')[2], '')}".rstrip()


def _setting(target: TargetSettings) -> str:
    threads = "1 thread" if target.threads == 1 else f"{target.threads} threads"
    return f"{target.kind} with {threads} and batch size {target.batch_size}"
