"""Weights that a space file gives: read without running code, and held against the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
        raise UserError(
            f"{PLACE}: must be default, none or a safetensors file, but {path}: {failure}"
        ) from None


def load_weights_(
    net: nn.Module,
    values: Mapping[str, Tensor],
    head: str | None = None,
    whole: nn.Module | None = None,
) -> bool:
    """Load every tensor of `net`, but for those of the layer `head` where they have other shapes.

    Returns whether they have. `whole` is what `net` was cut from; what `values` has of the parts
    that were left out is not looked at, nor what it lacks of the net's own. `UserError` if another
    tensor is absent or has another shape, and if `values` has more: a deeper net's, say.
    """
    whole = whole or net
    named = whole.state_dict().keys()
    wanted = {name: tensor for name, tensor in net.state_dict().items() if name in named}
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
    ignored = _left_out(net, whole)
    surplus = [
        name
        for name in values.keys() - wanted.keys()
        if not _is_counter(name) and ignored.isdisjoint(_places(name))
    ]
    if surplus:
        raise UserError(
            f"{PLACE}: must be of the model alone, but {len(surplus)} are of layers that it has "
            f"not, {min(surplus)!r} first"
        )
    found = {name: values[name] for name in wanted if name in values and name not in absent}
    net.load_state_dict(found, strict=False)
    return bool(absent)


def _is_counter(name: str) -> bool:
    """Whether a tensor counts batches, which serves training only."""
    return name.endswith("num_batches_tracked")


def _left_out(net: nn.Module, whole: nn.Module) -> set[str]:
    """The modules and tensors of `whole` that `net` has not, or has a stub of."""
    kept = {name for name, module in net.named_modules() if not isinstance(module, nn.Identity)}
    modules = {
        name
        for name, module in whole.named_modules()
        if name not in kept and not isinstance(module, nn.Identity)
    }
    return modules | (whole.state_dict().keys() - net.state_dict().keys())


def _places(name: str) -> Iterator[str]:
    """A tensor's name and those of the modules around it, `a.b.weight`, `a.b` and `a`."""
    while name:
        yield name
        name = name.rpartition(".")[0]
