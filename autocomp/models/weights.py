"""Weights that a space file gives: read without running code, and held against the model."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from autocomp.errors import UserError
from autocomp.files import resolve_path

PLACE = "task.model.weights"


def read_weights(written: str) -> dict[str, Tensor]:
    """The tensors of the safetensors file at a path as a space file has it."""
    path = resolve_path(written, PLACE, UserError)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as failure:
        raise UserError(f"{PLACE}: must be a safetensors file, but {path}: {failure}") from None


def absent_tensors(net: nn.Module, values: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors of `net` that `values` lacks, or has in another shape."""
    return [
        name
        for name, tensor in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
        and (name not in values or values[name].shape != tensor.shape)
    ]
