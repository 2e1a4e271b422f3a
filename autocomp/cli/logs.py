"""Logs: the logger "autocomp" on standard error, one plain line a message."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("autocomp")


class StderrHandler(logging.Handler):
    """Looks standard error up for each message, for a progress display replaces it for a time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except BrokenPipeError:
            self.handleError(record)


def set_up_logging(quiet: bool = False, verbose: bool = False) -> None:
    """Errors only if `quiet`, every detail if `verbose`, progress otherwise."""
    for handler in [one for one in logger.handlers if isinstance(one, StderrHandler)]:
        logger.removeHandler(handler)
    logger.addHandler(StderrHandler())
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False


def shows_progress() -> bool:
    """True if a moving display is of use: standard error is a terminal, and nobody asked for -q."""
    return sys.stderr.isatty() and logger.isEnabledFor(logging.INFO)
