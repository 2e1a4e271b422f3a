"""From a PyTorch graph to an ONNX one whose stored tensors bear the model's own names."""

from __future__ import annotations

import io
import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager, redirect_stdout

import numpy as np
import onnx
import torch
from onnx import NodeProto, helper, numpy_helper
from torch import nn
from torch.jit._trace import TracerWarning
from torch.onnx.errors import OnnxExporterError

from autocomp.errors import UserError
from autocomp.targets.base import ExportableGraph
from autocomp.targets.onnxruntime.edit import (
    attribute,
    constants,
    consumers,
    initializers,
    remove_unused,
    rename,
    set_nodes,
    split_aliases,
    store,
)
from autocomp.targets.onnxruntime.shapes import fix_shapes

OPSET = 17
_PROTOBUF_LIMIT_BYTES = 2**31 - 2**24  # 16 MiB below it for the graph itself


def export(name: str, graph: ExportableGraph, model: nn.Module) -> onnx.ModelProto:
    """The ONNX form of `graph`, a part of `model`, whose names its weights bear.

    Norms are folded into convolutions, and shapes are constants wherever they can be.
    `UserError` if the weights do not fit into one ONNX file, or if it computes what ONNX cannot.
    """
    weight_bytes = sum(tensor.nbytes for tensor in graph.module.parameters())
    if weight_bytes > _PROTOBUF_LIMIT_BYTES:
        raise UserError(
            f"{name}: weights must fit into one ONNX file of 2 GiB, "
            f"but take {weight_bytes / 2**30:.1f} GiB"
        )
    try:
        proto = _trace(graph)
    except OnnxExporterError as failure:
        reason = str(failure).partition("[Caused by")[0].strip().splitlines()[0]
        raise UserError(
            f"{name}: must compute what PyTorch exports to ONNX, but got: {reason}"
        ) from failure
    split_aliases(proto.graph)
    given = {*graph.inputs, *graph.outputs}
    names = _model_names(graph.module, model)
    rename(proto.graph, {own: name for own, name in names.items() if name not in given})
    _fold_batch_norms(proto.graph)
    remove_unused(proto.graph)
    fix_shapes(proto)
    return proto


def _trace(graph: ExportableGraph) -> onnx.ModelProto:
    """Export by TorchScript: a tenth of the time of the newer exporter, and it keeps names."""
    file = io.BytesIO()
    # where it fails, it prints the whole graph
    silent = redirect_stdout(io.StringIO())
    with warnings.catch_warnings(), torch.no_grad(), _evaluating(graph.module), _unfused(), silent:
        for message in ("You are using the legacy TorchScript", "The feature will be removed"):
            warnings.filterwarnings("ignore", message, DeprecationWarning)
        warnings.filterwarnings("ignore", category=TracerWarning)
        # of a padding, which it leaves to be computed at run time; `fix_shapes` does not
        warnings.filterwarnings("ignore", "Constant folding - Only steps=1", UserWarning)
        torch.onnx.export(
            graph.module,
            tuple(graph.inputs.values()),
            file,  # type: ignore[arg-type]  # a buffer, though its type says a path
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes=graph.dynamic,
            opset_version=OPSET,
            do_constant_folding=False,  # it renames what it folds
            dynamo=False,
        )
    proto = onnx.load_from_string(file.getvalue())
    _count_axes_from_zero(proto.graph)
    _declare_unread(proto.graph, graph)
    return proto


def _count_axes_from_zero(proto: onnx.GraphProto) -> None:
    """Write the axes of transpositions as ONNX has them: of `movedim` they are left negative."""
    for node in proto.node:
        for one in node.attribute:
            if one.name == "perm":
                one.ints[:] = [axis % len(one.ints) for axis in one.ints]


def _declare_unread(proto: onnx.GraphProto, graph: ExportableGraph) -> None:
    """Declare the inputs that nothing reads, which the exporter leaves out: callers give them."""
    declared = {one.name for one in proto.input}
    for name, tensor in graph.inputs.items():
        if name not in declared:
            axes = graph.dynamic.get(name, {})
            shape = [axes.get(axis, length) for axis, length in enumerate(tensor.shape)]
            kind = helper.np_dtype_to_tensor_dtype(tensor.numpy().dtype)
            proto.input.append(helper.make_tensor_value_info(name, kind, shape))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for `module` and all below it; afterwards each is in the mode it was in.

    The exporter alone would put a model into training mode if the wrapper around it is new.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def _unfused() -> Iterator[None]:
    """PyTorch's own attention in its parts: the exporter knows no form of its fused kernel."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _model_names(part: nn.Module, model: nn.Module) -> dict[str, str]:
    """For each tensor of `part`, under any of its names, its first name in `model`."""
    known = {
        id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    own = (
        *part.named_parameters(remove_duplicate=False),
        *part.named_buffers(remove_duplicate=False),
    )
    return {name: known[id(tensor)] for name, tensor in own if id(tensor) in known}


def _fold_batch_norms(graph: onnx.GraphProto) -> None:
    """Write each BatchNorm that follows a convolution into its weight and bias.

    ONNX Runtime would do so when it loads the file, but the file would carry four vectors.
    """
    stored, known, readers = initializers(graph), constants(graph), consumers(graph)
    folded: list[NodeProto] = []
    for conv in graph.node:
        if conv.op_type != "Conv" or any(name not in stored for name in conv.input[1:]):
            continue
        (norm, *others) = readers[conv.output[0]]
        shared = any(len(readers[name]) > 1 for name in conv.input[1:])
        if _is_constant_norm(norm, known) and not others and not shared:
            _fold(graph, conv, norm)
            folded.append(norm)
            conv.output[0] = norm.output[0]
    set_nodes(graph, [node for node in graph.node if node not in folded])


def _is_constant_norm(node: NodeProto, known: Container[str]) -> bool:
    """Whether it is a BatchNorm by statistics that do not depend on the batch."""
    is_norm = node.op_type == "BatchNormalization" and not attribute(node, "training_mode", 0)
    return is_norm and all(name in known for name in node.input[1:])


def _fold(graph: onnx.GraphProto, conv: NodeProto, norm: NodeProto) -> None:
    known = constants(graph)
    weight, *bias = (numpy_helper.to_array(known[name]) for name in conv.input[1:])
    gamma, beta, mean, variance = (numpy_helper.to_array(known[name]) for name in norm.input[1:])
    epsilon = float(attribute(norm, "epsilon", 1e-5))  # type: ignore[arg-type]
    factor = gamma / np.sqrt(variance + epsilon)  # (output channels,)
    spread = factor.reshape(-1, *[1] * (weight.ndim - 1))
    store(graph, conv.input[1], (weight * spread).astype(np.float32))
    shift = beta + ((bias[0] if bias else 0) - mean) * factor
    if not bias:
        name = f"{conv.input[1].removesuffix('weight')}bias"
        # a layer of one's own may have a bias that is not the convolution's
        conv.input.append(f"{conv.input[1]}.bias" if name in known else name)
    store(graph, conv.input[2], shift.astype(np.float32))
