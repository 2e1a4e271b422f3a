"""Lowers compressed models to ONNX files and runs them in ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import GraphProto

from autocomp.compress.formats import FLOAT_BITS, HALF_BITS, Compressed, LayerFormat
from autocomp.compress.ranges import RANGES
from autocomp.deploy.photos import runner
from autocomp.errors import CheckpointError, unknown
from autocomp.files import write_bytes
from autocomp.targets.base import Artifact, Capabilities, Drive, ExportableGraph, Run
from autocomp.targets.onnxruntime.calibrate import Method, calibrate
from autocomp.targets.onnxruntime.edit import merge_equal, store_halved
from autocomp.targets.onnxruntime.export import export
from autocomp.targets.onnxruntime.fixed import range_method, results, store_fixed
from autocomp.targets.onnxruntime.lowbit import pack_weights
from autocomp.targets.onnxruntime.packed import kernel_bits
from autocomp.targets.onnxruntime.session import open_session
from autocomp.targets.onnxruntime.static import CODE_BITS, activations, quantize_convolutions


def lower(
    graphs: Mapping[str, ExportableGraph],
    compressed: Compressed,
    directory: Path,
    *,
    drive: Drive | None = None,
) -> Artifact:
    """Write `<name>.onnx` into `directory` for each graph, its weights packed at their widths.

    Weights whose format rounds no activation are widened to fp32 when the file is loaded.
    Convolutions round theirs over the ranges in `compressed`, which are measured with `drive` if
    there are none. `UserError` if a graph's weights do not fit into one file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    models = {name: export(name, graph, compressed.module) for name, graph in graphs.items()}
    compressed = _in_order(compressed)
    if compressed.rounds_activations and not compressed.ranges:
        _measure_ranges(models, compressed, drive)
    skipped: list[str] = []
    for name, model in models.items():
        ranges = _ranges(name, model, compressed)
        quantize_convolutions(model, compressed.quantized, ranges)
        store_fixed(model.graph, compressed.fixed, ranges)
        lines = pack_weights(model, compressed.quantized)
        skipped.extend(f"{name}: {line}" for line in lines)
        store_halved(model.graph, compressed.halved)
        merge_equal(model.graph)
        write_bytes(directory / f"{name}.onnx", model.SerializeToString())
    return Artifact(directory, {name: f"{name}.onnx" for name in graphs}, skipped=tuple(skipped))


def _in_order(compressed: Compressed) -> Compressed:
    """The same, tensors in the model's order and not the steps': a reloaded model knows no steps.

    The ranges are not a copy: what is measured is put into both.
    """
    names, quantized, fixed = compressed.module.state_dict(), compressed.quantized, compressed.fixed
    return replace(
        compressed,
        quantized={name: quantized[name] for name in names if name in quantized},
        fixed={name: fixed[name] for name in names if name in fixed},
    )


def _measure_ranges(
    models: Mapping[str, onnx.ModelProto], compressed: Compressed, drive: Drive | None
) -> None:
    """Put the ranges of every graph with 8-bit convolutions into `compressed`."""
    assert drive is not None, "rounded activations need calibration data"
    found = {name: _rounded(model.graph, compressed) for name, model in models.items()}
    wanted = {name: methods for name, methods in found.items() if methods}
    for name, ranges in calibrate(models, wanted, drive).items():
        compressed.ranges[name] = torch.from_numpy(ranges)


def _rounded(graph: GraphProto, compressed: Compressed) -> dict[str, Method]:
    """The activations of a graph that are rounded, in its order, and how their ranges are found."""
    integers = activations(graph, compressed.quantized)
    fixed = results(graph, compressed.fixed)
    return {
        **{name: range_method(how) for name, how in fixed.items() if name not in integers},
        **{name: RANGES[method] for name, method in integers.items()},
    }


def _ranges(name: str, model: onnx.ModelProto, compressed: Compressed) -> dict[str, np.ndarray]:
    """The ends (2,) of each rounded activation's range; `CheckpointError` if too few are known."""
    names = list(_rounded(model.graph, compressed))
    rows = compressed.ranges[name].numpy() if name in compressed.ranges else np.zeros((0, 2))
    if len(rows) != len(names):
        raise CheckpointError(
            f"model.safetensors: must hold ranges of {len(names)} activations, "
            f"but holds {len(rows)}"
        )
    return dict(zip(names, rows, strict=True))


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
    """Which weight widths are stored as such, and which kernel computes them.

    `computed_bits` says at which width.
    """
    few, floats = (2, 3, 4, 5, 6, 8), (16, 32)
    return {
        "linear": dict.fromkeys(few, "MatMulNBits") | dict.fromkeys(floats, "MatMul"),
        "embedding": dict.fromkeys(few, "GatherBlockQuantized") | dict.fromkeys(floats, "Gather"),
        "convolution": dict.fromkeys(few, "QLinearConv") | dict.fromkeys(floats, "Conv"),
    }


def computed_bits(shape: Sequence[int], how: LayerFormat | None) -> int:
    """In how many bits a weight of `shape` reaches its kernel, where it has one: 2, 4, 8 or 32."""
    if how is None or how.bits >= HALF_BITS or how.activation_bits == FLOAT_BITS:
        return FLOAT_BITS
    return CODE_BITS if how.ranges is not None else kernel_bits(how, shape)


def versions() -> dict[str, str]:
    """The versions of ONNX and ONNX Runtime."""
    return {"onnx": onnx.__version__, "onnxruntime": ort.__version__}
