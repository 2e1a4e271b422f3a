"""Where compressed models run: one entry a runtime, loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable

from autocomp.errors import UserError, unknown
from autocomp.targets.base import Artifact, Run, Target, TargetSettings


def _onnxruntime() -> Target:
    from autocomp.targets.onnxruntime import target

    return target


TARGETS: dict[str, Callable[[], Target]] = {"onnxruntime": _onnxruntime}


def load_target(kind: str) -> Target:
    """The target called `kind`; `UserError` names the known ones."""
    if kind not in TARGETS:
        raise UserError(unknown("target.kind", kind, list(TARGETS)))
    return TARGETS[kind]()


__all__ = ["TARGETS", "Artifact", "Run", "Target", "TargetSettings", "load_target"]
