"""Lowers compressed models to ONNX files and runs them in ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from autocomp.compress.formats import Compressed
from autocomp.deploy.photos import runner
from autocomp.errors import CheckpointError, unknown
from autocomp.files import write_bytes
from autocomp.targets.base import Artifact, Capabilities, Drive, ExportableGraph, Run
from autocomp.targets.onnxruntime.calibrate import calibrate
from autocomp.targets.onnxruntime.edit import merge_equal, store_halved
from autocomp.targets.onnxruntime.export import export
from autocomp.targets.onnxruntime.lowbit import INT8_ACTIVATIONS, KERNEL_BITS, pack_weights
from autocomp.targets.onnxruntime.session import open_session
from autocomp.targets.onnxruntime.static import activations, quantize_convolutions


def lower(
    graphs: Mapping[str, ExportableGraph],
    compressed: Compressed,
    directory: Path,
    accuracy_level: int = INT8_ACTIVATIONS,
    *,
    drive: Drive | None = None,
) -> Artifact:
    """Write `<name>.onnx` into `directory` for each graph, its weights packed at their widths.

    Linear layers with packed weights round their activations to int8, a scale a group, unless
    `accuracy_level` is 0. Convolutions round theirs over the ranges in `compressed`, which are
    measured with `drive` if there are none. `UserError` if a graph's weights do not fit into one
    file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    models = {name: export(name, graph, compressed.module) for name, graph in graphs.items()}
    if compressed.rounds_activations and not compressed.ranges:
        _measure_ranges(models, compressed, drive)
    skipped: list[str] = []
    for name, model in models.items():
        if name in compressed.ranges:
            quantize_convolutions(model, compressed.quantized, compressed.ranges[name].numpy())
        lines = pack_weights(model, compressed.quantized, accuracy_level)
        skipped.extend(f"{name}: {line}" for line in lines)
        store_halved(model.graph, compressed.halved)
        merge_equal(model.graph)
        write_bytes(directory / f"{name}.onnx", model.SerializeToString())
    return Artifact(directory, {name: f"{name}.onnx" for name in graphs}, skipped=tuple(skipped))


def _measure_ranges(
    models: Mapping[str, onnx.ModelProto], compressed: Compressed, drive: Drive | None
) -> None:
    """Put the ranges of every graph with 8-bit convolutions into `compressed`."""
    assert drive is not None, "rounded activations need calibration data"
    found = {name: activations(model.graph, compressed.quantized) for name, model in models.items()}
    wanted = {name: methods for name, methods in found.items() if methods}
    for name, ranges in calibrate(models, wanted, drive).items():
        compressed.ranges[name] = torch.from_numpy(ranges)


def open(artifact: Artifact, threads: int = 1) -> Run:
    """Load every graph; `CheckpointError` if a file is missing, truncated or not a model."""
    run_graph = runner(
        {
            name: open_session(artifact.directory / file, threads)
            for name, file in artifact.graphs.items()
        }
    )

    def run(name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        if name not in artifact.graphs:
            raise CheckpointError(
                unknown(f"{artifact.directory}: graph", name, list(artifact.graphs))
            )
        return run_graph(name, **inputs)

    return run


def capabilities() -> Capabilities:
    """Which weight widths are computed by which kernel; any other width is held wider."""
    return {
        "linear": dict.fromkeys(KERNEL_BITS, "MatMulNBits") | {16: "MatMul", 32: "MatMul"},
        "embedding": {
            **dict.fromkeys(KERNEL_BITS, "GatherBlockQuantized"),
            **dict.fromkeys((16, 32), "Gather"),
        },
        "convolution": dict.fromkeys((4, 5, 6, 8), "QLinearConv") | {16: "Conv", 32: "Conv"},
    }


def versions() -> dict[str, str]:
    """The versions of ONNX and ONNX Runtime."""
    return {"onnx": onnx.__version__, "onnxruntime": ort.__version__}
