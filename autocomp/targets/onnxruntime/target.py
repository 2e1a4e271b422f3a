"""Lowers compressed models to ONNX files and runs them in ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
from autocomp.errors import CheckpointError, first_of, unknown
from autocomp.fields import WEIGHT_BITS
from autocomp.files import write_bytes
from autocomp.targets.base import Artifact, Capabilities, Drive, ExportableGraph, Run
from autocomp.targets.onnxruntime.calibrate import Method, calibrate
from autocomp.targets.onnxruntime.edit import merge_equal, store_halved
from autocomp.targets.onnxruntime.export import export
from autocomp.targets.onnxruntime.fixed import range_method, results, store_fixed
from autocomp.targets.onnxruntime.lowbit import pack_weights, wider_lines
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
    rounded = {name: _rounded(model.graph, compressed) for name, model in models.items()}
    if drive is not None and any(rounded.values()) and not compressed.ranges:
        _measure_ranges(models, rounded, compressed, drive)
    skipped = _unrounded(models, compressed)
    computed_bits = dict.fromkeys([*compressed.halved, *compressed.fixed], FLOAT_BITS)
    for name, model in models.items():
        ranges = _ranges(name, rounded[name], compressed)
        integers = quantize_convolutions(model, compressed.quantized, ranges)
        store_fixed(model.graph, compressed, ranges)
        packed, lines = pack_weights(model, compressed.quantized)
        for weight, bits in (integers | packed).items():
            computed_bits[weight] = max(bits, computed_bits.get(weight, bits))
        lines += wider_lines(integers | packed, compressed.quantized)
        skipped.extend(f"{name}: {line}" for line in lines)
        store_halved(model.graph, compressed.halved)
        merge_equal(model.graph)
        write_bytes(directory / f"{name}.onnx", model.SerializeToString())
    files = {name: f"{name}.onnx" for name in graphs}
    return Artifact(directory, files, skipped=tuple(skipped), computed_bits=computed_bits)


def _in_order(compressed: Compressed) -> Compressed:
    """The same, tensors in the model's order and not the steps': a reloaded model knows no steps.

    The ranges are not a copy: what is measured is put into both.
    """
    names = compressed.module.state_dict()
    quantized, fixed, results = compressed.quantized, compressed.fixed, compressed.results
    return replace(
        compressed,
        quantized={name: quantized[name] for name in names if name in quantized},
        fixed={name: fixed[name] for name in names if name in fixed},
        results={name: results[name] for name in names if name in results},
    )


def _measure_ranges(
    models: Mapping[str, onnx.ModelProto],
    rounded: Mapping[str, Mapping[str, Method]],
    compressed: Compressed,
    drive: Drive,
) -> None:
    """Put the ranges of every graph with `rounded` activations into `compressed`."""
    wanted = {name: methods for name, methods in rounded.items() if methods}
    for name, ranges in calibrate(models, wanted, drive).items():
        compressed.ranges[name] = torch.from_numpy(ranges)


def _rounded(graph: GraphProto, compressed: Compressed) -> dict[str, Method]:
    """The activations of a graph that are rounded, in its order, and how their ranges are found."""
    integers = activations(graph, compressed.quantized)
    fixed = results(graph, compressed.results)
    return {
        **{
            name: range_method(compressed.results[weight])
            for name, weight in fixed.items()
            if name not in integers
        },
        **{name: RANGES[method] for name, method in integers.items()},
    }


def _unrounded(models: Mapping[str, onnx.ModelProto], compressed: Compressed) -> list[str]:
    """A line for the weights of which no graph has a layer whose results could be rounded."""
    found = {
        weight
        for model in models.values()
        for weight in results(model.graph, compressed.results).values()
    }
    if not (missed := [name for name in compressed.results if name not in found]):
        return []
    return [f"{first_of(missed)}: results stay in fp32, for no layer reads these weights as such"]


def _ranges(name: str, names: Collection[str], compressed: Compressed) -> dict[str, np.ndarray]:
    """The ends (2,) of the range of each of `names`; `CheckpointError` if too few are known."""
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
    """Linear layers and embeddings have kernels of 2, 4 and 8 bits, convolutions one of 8."""
    floats = (HALF_BITS, FLOAT_BITS)
    codes = [bits for bits in WEIGHT_BITS if bits not in floats]
    in_fp32 = dict.fromkeys(floats, FLOAT_BITS)
    matrix = {bits: kernel_bits(LayerFormat(bits=bits), (1, 1)) for bits in codes} | in_fp32
    convolution = dict.fromkeys(codes, CODE_BITS) | in_fp32
    return {"linear": matrix, "embedding": matrix, "convolution": convolution}


def versions() -> dict[str, str]:
    """The versions of ONNX and ONNX Runtime."""
    return {"onnx": onnx.__version__, "onnxruntime": ort.__version__}
