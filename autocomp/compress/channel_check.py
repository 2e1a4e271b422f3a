"""What a model computes without some of its channels, found without touching its weights.

The channels to remove carry NaN from the layers that write them. NaN survives every operation, so
each layer that reads must see it in exactly the channels the plan says; there it is replaced by
zero, which is what removing the channel amounts to. A zero-padded shortcut, a channel shuffle or
a norm across channels shows up as NaN in the wrong place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from autocomp.compress.importance import Group, Role
from autocomp.errors import PolicyError

Names = Mapping[nn.Module, str]
TOLERANCE = 1e-2  # of the largest output; room for TF32
Removal = tuple[Group, Tensor]  # and which of its channels go, int64


@dataclass(frozen=True, eq=False)
class Masked:
    """`outputs` of the model without the channels, and where they were not what was planned."""

    outputs: list[Tensor]
    problems: tuple[str, ...]


@torch.no_grad()
def masked_forward(
    module: nn.Module, inputs: tuple[Tensor, ...], removals: Iterable[Removal], names: Names
) -> Masked:
    """Run `module` on `inputs` as if the channels of `removals` were gone.

    `names` maps every layer to its name; the module must be in evaluation mode.
    """
    removals = list(removals)
    written = _planned(removals, "out")
    read = _planned(removals, "in")
    problems: list[str] = []

    def write(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output.movedim(_channel_axis(layer), 0)[written[layer]] = torch.nan
        return output

    def check(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = (*args, *kwargs.values())[0]
        missing = x.isnan()
        seen = missing.movedim(_channel_axis(layer), 0).flatten(1).any(1).nonzero().flatten()
        planned = read.get(layer, torch.empty(0, dtype=torch.int64))
        if seen.tolist() != planned.tolist():
            problems.append(
                f"{names[layer]} would lose other channels than the ones removed "
                "(a padded shortcut, a shuffle or an operation across channels)"
            )
        filled = x.masked_fill(missing, 0)
        if args:
            return (filled, *args[1:]), kwargs
        return (), {**kwargs, next(iter(kwargs)): filled}

    hooks = [layer.register_forward_hook(write) for layer in written]
    for layer in module.modules():
        if isinstance(layer, _ConvNd | nn.Linear) and not is_depthwise(layer):
            hooks.append(layer.register_forward_pre_hook(check, with_kwargs=True))
    try:
        outputs = tensors(module(*inputs))
    finally:
        for hook in hooks:
            hook.remove()
    if any(output.isnan().any() for output in outputs):
        problems.append("its channels are the model's output")
    return Masked(outputs, tuple(problems))


@torch.no_grad()
def check_same(module: nn.Module, inputs: tuple[Tensor, ...], expected: Masked) -> None:
    """Raise `PolicyError` unless the pruned `module` computes what was expected of it."""
    detail = expected.problems[0] if expected.problems else "its output differs"
    same = False
    try:
        outputs = tensors(module(*inputs))
    except RuntimeError as failure:  # shapes that no longer fit
        detail = str(failure).splitlines()[0]
    else:
        same = not expected.problems and all(
            output.shape == wanted.shape
            and (output - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
            for output, wanted in zip(outputs, expected.outputs, strict=True)
        )
    if not same:
        raise PolicyError(
            "prune_channels.layers: what is left must compute what the model does without the "
            f"removed channels, but {detail}; exclude layers whose channels meet channels that "
            "cannot be removed"
        )


def is_depthwise(layer: nn.Module) -> bool:
    """True for a convolution with one filter a channel, so that its channels stay apart."""
    return (
        isinstance(layer, _ConvNd)
        and layer.groups > 1
        and layer.groups == layer.in_channels == layer.out_channels
    )


def tensors(outputs: Any) -> list[Tensor]:
    """The tensors in whatever a module returned, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs
    return [tensor for part in parts for tensor in tensors(part)]


def _planned(removals: list[Removal], role: Role) -> dict[nn.Module, Tensor]:
    """For each layer the channels of its own that the removals take, ascending."""
    planned: dict[nn.Module, set[int]] = {}
    for group, channels in removals:
        for member in group.members:
            if member.role == role:
                taken = member.indices[torch.isin(member.channels, channels)]
                planned.setdefault(member.module, set()).update(taken.tolist())
    return {
        layer: torch.tensor(sorted(taken), dtype=torch.int64) for layer, taken in planned.items()
    }


def _channel_axis(layer: nn.Module) -> int:
    return -1 if isinstance(layer, nn.Linear) else 1
