"""Opens ONNX files as sessions, in the same way wherever they are run, timed or weighed.

Imports what a deployed model imports and no more, so that a process that only runs a model stays
small.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from autocomp.deploy import photos
from autocomp.errors import CheckpointError

_DTYPES = {
    "tensor(bool)": np.bool_,
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
}


def open_session(path: Path, threads: int = 1) -> ort.InferenceSession:
    """The ONNX file at `path`, ready to run; `CheckpointError` if it cannot be loaded."""
    try:
        return photos.open_session(path, threads)
    except photos.Unusable as failure:
        raise CheckpointError(str(failure)) from None


def zero_inputs(session: ort.InferenceSession, batch_size: int = 1) -> dict[str, np.ndarray]:
    """Zeros for every input of a session.

    They have length `batch_size` along axes called "batch" and 1 along others that may change.
    """
    lengths = {"batch": batch_size}
    return {
        node.name: np.zeros(
            [axis if isinstance(axis, int) else lengths.get(axis, 1) for axis in node.shape],
            _DTYPES[node.type],
        )
        for node in session.get_inputs()
    }
