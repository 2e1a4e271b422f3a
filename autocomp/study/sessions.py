"""Each session of a study: who searched in it, when, and with what."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel

from autocomp.provenance import commit, machine, versions

COMPARED = ("machine", "versions")
"""What latency depends on."""
Session = dict[str, Any]
log = logging.getLogger(__name__)


def _zoned(text: str) -> str:
    """A time that can be told from others, whatever zone they are of."""
    try:
        if datetime.fromisoformat(text).tzinfo is not None:
            return text
    except ValueError:
        pass
    raise ValueError(f"must be a time such as 2026-01-31T12:00:00+00:00, but got {text!r}")


class _Session(BaseModel):
    started: Annotated[str, AfterValidator(_zoned)] = ""
    command: str | None = None
    commit: str | None = None
    machine: dict[str, Any] = {}
    versions: dict[str, Any] = {}


class Header(BaseModel):
    """What study.json must be for its sessions to be read; what else it holds is kept as it is."""

    sessions: list[_Session] = []


def new_session(
    directory: Path, before: Sequence[Session], command: str | None, seed: int
) -> Session:
    """A session that begins now; a warning if trials measured in the last one may not compare."""
    session: Session = {
        "command": command,
        "commit": commit(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seed": seed,
        "machine": machine(),
        "versions": versions(),
    }
    for name in COMPARED:
        if before and _differ(before[-1].get(name), session[name]):
            log.warning(
                "%s: must have one %s throughout for latencies to compare, but had %s and now %s",
                directory,
                name.removesuffix("s"),
                before[-1].get(name),
                session[name],
            )
    return session


def _differ(before: Any, now: Mapping[str, Any]) -> bool:
    """Whether two records differ in what both tell; an older one tells less."""
    return any(before[key] != value for key, value in now.items() if key in (before or {}))


def provenance(sessions: Sequence[Session]) -> dict[str, Any]:
    """What a front says of where it comes from: the last session, and the commits of all."""
    last = sessions[-1] if sessions else {}
    return {
        "command": last.get("command"),
        "commit": last.get("commit"),
        "commits": list(dict.fromkeys(one.get("commit") for one in sessions)),
        "sessions": len(sessions),
        "versions": last.get("versions", {}),
        "machine": last.get("machine", {}),
    }
