"""From a PyTorch graph to an ONNX one whose stored tensors bear the model's own names."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import torch
from onnx import NodeProto, helper, numpy_helper
from torch import nn
from torch.jit._trace import TracerWarning

from autocomp.errors import UserError
from autocomp.targets.base import ExportableGraph
from autocomp.targets.onnxruntime.edit import (
    attribute,
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
    `UserError` if the weights do not fit into one ONNX file.
    """
    weight_bytes = sum(tensor.nbytes for tensor in graph.module.parameters())
    if weight_bytes > _PROTOBUF_LIMIT_BYTES:
        raise UserError(
            f"{name}: weights must fit into one ONNX file of 2 GiB, "
            f"but take {weight_bytes / 2**30:.1f} GiB"
        )
    proto = _trace(graph)
    split_aliases(proto.graph)
    rename(proto.graph, _model_names(graph.module, model))
    _fold_batch_norms(proto.graph)
    remove_unused(proto.graph)
    fix_shapes(proto)
    return proto


def _trace(graph: ExportableGraph) -> onnx.ModelProto:
    """Export by TorchScript: a tenth of the time of the newer exporter, and it keeps names."""
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad(), _evaluating(graph.module), _unfused():
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
    _declare_unread(proto.graph, graph)
    return proto


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
    stored, readers = initializers(graph), consumers(graph)
    folded: dict[str, NodeProto] = {}
    for conv in graph.node:
        if conv.op_type != "Conv" or any(name not in stored for name in conv.input[1:]):
            continue
        (norm, *others) = readers[conv.output[0]]
        shared = any(len(readers[name]) > 1 for name in conv.input[1:])
        if norm.op_type == "BatchNormalization" and not others and not shared:
            _fold(graph, conv, norm)
            folded[norm.output[0]] = norm
            conv.output[0] = norm.output[0]
    set_nodes(graph, [node for node in graph.node if node not in folded.values()])


def _fold(graph: onnx.GraphProto, conv: NodeProto, norm: NodeProto) -> None:
    stored = initializers(graph)
    weight, *bias = (numpy_helper.to_array(stored[name]) for name in conv.input[1:])
    gamma, beta, mean, variance = (numpy_helper.to_array(stored[name]) for name in norm.input[1:])
    epsilon = float(attribute(norm, "epsilon", 1e-5))  # type: ignore[arg-type]
    factor = gamma / np.sqrt(variance + epsilon)  # (output channels,)
    store(graph, conv.input[1], (weight * factor[:, None, None, None]).astype(np.float32))
    shift = beta + ((bias[0] if bias else 0) - mean) * factor
    name = conv.input[2] if bias else f"{conv.input[1].removesuffix('weight')}bias"
    store(graph, name, shift.astype(np.float32))
    conv.input[2:] = [name]
