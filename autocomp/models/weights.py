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


def load_weights_(net: nn.Module, values: Mapping[str, Tensor], head: str | None = None) -> bool:
    """Load every tensor of `net`, but for those of the layer `head` where they have other shapes.

    Returns whether they have. `UserError` if another is absent or has another shape, and if
    `values` has some of layers that the net has not: a deeper one's, say. What belongs to parts
    that are left out of the net altogether, the classifier of a backbone say, is not looked at.
    """
    wanted = net.state_dict()
    absent = [
        name
        for name, tensor in wanted.items()
        if not _is_counter(name) and (name not in values or values[name].shape != tensor.shape)
    ]
    others = [name for name in absent if name.rpartition(".")[0] != head]
    if others:
        raise UserError(
            f"{PLACE}: must hold every weight of the model, but {len(others)} are absent or of "
            f"another shape, {others[0]!r} first"
        )
    surplus = [name for name in values if name not in wanted and not _is_left_out(net, name)]
    if surplus:
        raise UserError(
            f"{PLACE}: must be of the model alone, but {len(surplus)} are of layers that it has "
            f"not, {surplus[0]!r} first"
        )
    found = {name: values[name] for name in wanted if name in values and name not in absent}
    net.load_state_dict(found, strict=False)
    return bool(absent)


def _is_counter(name: str) -> bool:
    """Whether a tensor counts batches, which serves training only."""
    return name.endswith("num_batches_tracked")


def _is_left_out(net: nn.Module, name: str) -> bool:
    """Whether a tensor is of a part that is left out of `net`, of which there may be a stub."""
    if _is_counter(name):
        return True
    modules = dict(net.named_modules())
    parent = name.rpartition(".")[0]
    first = name.partition(".")[0]
    return first not in modules or isinstance(modules.get(parent), nn.Identity)
