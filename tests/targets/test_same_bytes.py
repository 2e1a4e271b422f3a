"""Policies of earlier studies give the files they gave then, so that those studies can go on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import pytest
import torch
from small_models import ConvNet, SmallGraph, Step, conv_graph, step_graph
from torch import nn

from autocomp.checkpoint.packing import describe, pack
from autocomp.compress.formats import Compressed, quantize_tensor
from autocomp.compress.quantize import layer_formats, quantize_
from autocomp.decisions import json_id
from autocomp.policy import Policy, Quantize
from autocomp.targets.onnxruntime import target


class WideNet(ConvNet):
    """Its last convolution has inputs enough for few bits, and a norm that turns signs."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.conv = nn.Conv2d(3, 8, 5, bias=False)


def fill_(model: nn.Module) -> None:
    """Weights that any version of PyTorch comes to: whole numbers, spread and divided."""
    with torch.no_grad():
        for place, tensor in enumerate(model.state_dict().values()):
            if tensor.is_floating_point():
                numbers = (torch.arange(tensor.numel()) * 7919 + 31 * place) % 1009
                tensor.copy_((numbers.view(tensor.shape) - 404) / 1000)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.abs_().add_(0.5)


def contents(path: Path) -> str:
    """What a file stores, whatever the exporter calls its intermediate results."""
    graph = onnx.load(path).graph
    stored = hashlib.sha256()
    for tensor in sorted(graph.initializer, key=lambda one: one.name):
        if "." in tensor.name and not tensor.name.startswith("/"):
            stored.update(repr((tensor.name, list(tensor.dims), tensor.data_type)).encode())
            stored.update(tensor.raw_data)
    return stored.hexdigest()


def contents_id(compressed: Compressed, folder: Path) -> str:
    """Of all that is stored of a model: its files, its formats and its packed tensors."""
    model = compressed.module
    graph: SmallGraph = step_graph(model) if isinstance(model, Step) else conv_graph(model)
    if any(one.format.ranges for one in compressed.quantized.values()):
        compressed.ranges["net"] = torch.tensor([[0.0, 1.0], [0.0, 4.0], [0.0, 6.0]])
    artifact = target.lower({"net": graph}, compressed, folder)
    formats = {name: one.model_dump(mode="json") for name, one in describe(compressed).items()}
    packed = {name: one.numpy().tobytes().hex() for name, one in pack(compressed).items()}
    return json_id([contents(artifact.files[0]), formats, packed])


CASES: dict[str, tuple[type[nn.Module], list[dict[str, object]], str]] = {
    "convolutions, 8 bits": (WideNet, [{"bits": 8}], "02e143658827"),
    "convolutions, 5 bits": (
        WideNet,
        [{"bits": 5, "ranges": "mse", "exclude": "head"}],
        "7607f4fa29d7",
    ),
    "linears, 8 bits": (Step, [{"bits": 8}], "0da2f7a2b995"),
    "linears, 4 bits": (Step, [{"bits": 4, "group_size": 128}], "652528ea0dd9"),
    "mixed": (
        Step,
        [{"bits": 16}, {"bits": 4, "layers": "embedding", "group_size": 64}],
        "614ab7ac555e",
    ),
}


@pytest.mark.parametrize(("kind", "steps", "expected"), CASES.values(), ids=CASES)
def test_files_are_as_they_were(
    kind: type[nn.Module], steps: list[dict[str, object]], expected: str, tmp_path: Path
) -> None:
    model = kind().eval()
    fill_(model)
    compressed = Compressed(model)
    for step in steps:
        quantize_(compressed, Quantize.model_validate({"layers": "**", **step}))
    assert contents_id(compressed, tmp_path) == expected


def test_checkpoints_of_whole_bytes_give_the_files_they_gave(tmp_path: Path) -> None:
    # their formats are those from before ranges were reduced
    compressed = Compressed(WideNet().eval())
    fill_(compressed.module)
    formats, _ = layer_formats(compressed.module, Quantize(layers="**", bits=8))
    for name, fmt in formats.items():
        whole = fmt.model_copy(update={"reduce_range": False})
        weight = compressed.module.get_submodule(name).get_parameter("weight")
        compressed.store_(f"{name}.weight", quantize_tensor(weight, whole))
    assert contents_id(compressed, tmp_path) == "481613a60e3a"


def test_policies_keep_their_ids() -> None:
    quantize = {"kind": "quantize", "layers": "**", "bits": {"a": 4, "b": 8}, "group_size": 128}
    assert Policy.model_validate({"steps": [quantize]}).id == "57b790ba46d6"
