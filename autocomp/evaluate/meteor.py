"""METEOR 1.5 (Denkowski and Lavie, WMT 2014) from pycocoevalcap's jar; needs Java.

The only module that starts a JVM. Starting one takes 6 s and 1.3 GB, scoring 1,000 captions well
under a second, so the first call starts it and it serves the process until that ends.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import subprocess
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from autocomp.errors import UserError
from autocomp.evaluate.ngrams import Tokens


def java_available() -> bool:
    """True if a `java` on the PATH runs; macOS has one that only says where to get Java."""
    path = shutil.which("java")
    return path is not None and _runs(path)


@lru_cache
def _runs(path: str) -> bool:
    try:
        command = [path, "-version"]
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def meteor(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], timeout_s: float = 600.0
) -> float:
    """METEOR in [0, 1] of the corpus, one candidate an image.

    Raises `UserError` with the reason if there is no Java, or if it dies or takes more than
    `timeout_s` seconds.
    """
    if not java_available():
        raise UserError(
            "METEOR: needs Java, but no working `java` is on the PATH; leave meteor out"
        )
    given = {
        index: [" ".join(tokens) for tokens in image] for index, image in enumerate(references)
    }
    found = {index: [" ".join(tokens)] for index, tokens in enumerate(candidates)}
    scorer = _scorer()
    expired = threading.Event()
    timer = threading.Timer(timeout_s, _stop, (scorer.meteor_p, expired))
    timer.start()
    try:
        score, _ = scorer.compute_score(given, found)
        return float(score)
    except (OSError, ValueError):
        # A dead JVM shows as a broken pipe, or as an empty line where a number is due.
        last = _last_words(scorer.meteor_p)
        _close(scorer)
        reason = f"did not answer within {timeout_s:g} s" if expired.is_set() else f"died: {last}"
        raise UserError(f"METEOR: needs a working Java, but it {reason}") from None
    finally:
        timer.cancel()
        timer.join()


def stop() -> None:
    """End the JVM, if one runs; the next call starts another."""
    for scorer in list(_running):
        _close(scorer)


def _scorer() -> Any:
    """The process's JVM, or a new one if there is none or it has died between two calls."""
    if _running and _running[0].meteor_p.poll() is not None:
        _close(_running[0])
    if not _running:
        from pycocoevalcap.meteor.meteor import Meteor

        _running.append(Meteor())
    return _running[0]


_running: list[Any] = []
atexit.register(stop)


def _stop(process: subprocess.Popen[bytes], expired: threading.Event) -> None:
    expired.set()
    process.kill()


def _last_words(process: subprocess.Popen[bytes]) -> str:
    process.kill()
    code = process.wait()
    said = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
    return said.splitlines()[-1] if said else f"exit status {code}"


def _close(scorer: Any) -> None:
    """End the JVM and close its pipes, which pycocoevalcap leaves to the garbage collector."""
    if scorer in _running:
        _running.remove(scorer)
    process = scorer.meteor_p
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        # Closing the input flushes it, and nobody reads it any more.
        with contextlib.suppress(OSError):
            pipe.close()
    # compute_score keeps the lock when it fails, and the finaliser would wait for it for ever.
    if scorer.lock.locked():
        scorer.lock.release()
