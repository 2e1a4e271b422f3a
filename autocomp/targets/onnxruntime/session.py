"""Opens ONNX files as sessions, in the same way wherever they are run, timed or weighed.

Imports numpy and ONNX Runtime alone, so that a process that only runs a model stays small.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from autocomp.errors import CheckpointError

_LOAD_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    UnicodeDecodeError,  # its message quotes a damaged name
)
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
    if not path.is_file():
        raise CheckpointError(f"{path}: must be an ONNX file, but there is none")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # threads that spin between calls slow everything else that shares the cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except _LOAD_ERRORS as failure:
        reason = " ".join(str(failure).split())[:200]
        raise CheckpointError(f"{path}: must be a whole ONNX file, but {reason}") from None


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
