"""How much memory a model takes where it is deployed: a fresh process that opens and runs it.

`python -m autocomp.targets.memory DIR BATCH_SIZE THREADS` prints it; that process loads what one
with `caption.py` loads: numpy, Pillow and ONNX Runtime.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from autocomp.errors import CheckpointError, UserError

if TYPE_CHECKING:
    from autocomp.targets.base import Artifact


def peak_rss_mb(
    artifact: Artifact, *, batch_size: int = 1, threads: int = 1, timeout_s: float = 120.0
) -> float:
    """Peak resident memory, in 10^6 bytes, of a process that opens and runs every graph once.

    Inputs are `batch_size` examples of zeros. `CheckpointError` if a graph cannot be opened or run,
    or takes longer than `timeout_s`.
    """
    numbers = (str(batch_size), str(threads))
    command = [sys.executable, "-m", "autocomp.targets.memory", str(artifact.directory), *numbers]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise CheckpointError(
            f"{artifact.directory}: must open and run within {timeout_s:g} s, but did not"
        ) from None
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"it ended with code {done.returncode}").splitlines()[-1]
        raise CheckpointError(f"{artifact.directory}: must open and run, but {reason}")
    return float(json.loads(done.stdout)["peak_rss_mb"])


def own_peak_rss_mb() -> float:
    """Peak resident memory of this process so far, in 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would count the process that started this one, up to the exec
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main(arguments: list[str]) -> int:
    """Open and run every ONNX file of a directory once; print the peak as JSON."""
    from autocomp.targets.onnxruntime.session import open_session, zero_inputs

    directory, batch_size, threads = arguments
    try:
        paths = sorted(Path(directory).glob("*.onnx"))
        if not paths:
            raise CheckpointError(f"{directory}: must hold ONNX files, but there are none")
        # all stay open at once, as they do in a process that serves the model
        sessions = [open_session(path, int(threads)) for path in paths]
        for session in sessions:
            session.run(None, zero_inputs(session, int(batch_size)))
    except UserError as failure:
        print(failure, file=sys.stderr)
        return 2
    print(json.dumps({"peak_rss_mb": round(own_peak_rss_mb(), 3)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
