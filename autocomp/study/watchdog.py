"""Cleans up after a search that was killed outright: ends Ray's helpers, removes its folder.

    python -m autocomp.study.watchdog FOLDER PID:STARTED...

Ray's daemon and its workers die with the driver, but its agents and workers that were just starting
stay for a minute, and its folder for ever. This process waits until the driver closes its standard
input, on purpose or by dying, and then ends what is left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

GRACE_S = 3.0


def start_watchdog(folder: str) -> subprocess.Popen[bytes]:
    """Watch over the processes this one has started so far, and over Ray's folder."""
    watched = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            watched.append(f"{process.pid}:{process.create_time()}")
    command = [sys.executable, "-m", __name__, folder, *watched]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def stop_watchdog(watchdog: subprocess.Popen[bytes]) -> None:
    """Let it clean up now, and wait for it."""
    assert watchdog.stdin is not None
    watchdog.stdin.close()
    watchdog.wait()


def _clean_up(folder: str, watched: list[str]) -> None:
    left = [process for entry in watched if (process := _still_running(entry)) is not None]
    _, left = psutil.wait_procs(left, timeout=GRACE_S)
    for process in [*left, *_started_for(folder)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _still_running(entry: str) -> psutil.Process | None:
    pid, started = entry.split(":")
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(int(pid))
        if abs(process.create_time() - float(started)) < 1:  # else the pid is another's now
            return process
    return None


def _started_for(folder: str) -> list[psutil.Process]:
    """Workers that were only starting: they know the folder, but not yet that Ray is dead."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            is_rays = any("ray" in Path(one).parts or "ray::" in one for one in command)
            if process.pid != os.getpid() and is_rays and any(folder in one for one in command):
                found.append(process)
    return found


if __name__ == "__main__":
    sys.stdin.read()
    _clean_up(sys.argv[1], sys.argv[2:])
