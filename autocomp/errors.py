"""The exceptions autocomp raises: one family for what a user can mend, one for what a trial hit.

Everything under `UserError` is shown as its message alone, with exit code 2. Anything else that
escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class AutocompError(Exception):
    """Base of every exception autocomp raises on purpose."""


class UserError(AutocompError, ValueError):
    """A mistake in what the user gave: a file, a flag, a folder, a policy.

    `problems` holds one line for each mistake, so several are reported at once.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: tuple[str, ...] = problems


class SpaceError(UserError):
    """A space file that cannot be read, validated or bound to its model."""


class PolicyError(UserError):
    """A policy that is not valid, or that does not fit the model it is applied to."""


class DataError(UserError):
    """A dataset folder or file that is missing, incomplete or unreadable."""


class CheckpointError(UserError):
    """A checkpoint that is truncated, edited, or not one of ours."""


class StudyError(UserError):
    """A study folder that cannot be used: another space's, locked, or not writable."""


class TrialStopped(AutocompError):
    """Raised inside a trial to end it early for a reason that is a result, not a bug (NaN, say)."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names closest in spelling to `name`, best first."""
    return difflib.get_close_matches(name, sorted(known), n=count, cutoff=0.4)


def first_of(names: Sequence[str]) -> str:
    """What a line says of many names: the first, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def unknown(where: str, name: str, known: Sequence[str]) -> str:
    """The line that reports a name that is not among the known ones, with the nearest of them."""
    close = nearest(name, known)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"{where}: must be one of {', '.join(sorted(known))}, but got {name!r}{hint}"
