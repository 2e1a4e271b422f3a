"""How much each channel of a group of coupled layers matters: one function a criterion.

A criterion takes a `Group` and returns one score a channel; the channels with the lowest scores
are removed. Scores of two groups are on different scales until they are normalised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from autocomp.errors import PolicyError

Role = Literal["out", "in", "bn"]
Transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, eq=False)
class Member:
    """A layer that loses something with each channel of a group.

    `role` says what: filters (`out`, depthwise convolutions included), the weights that read the
    channel (`in`), or a normalised channel (`bn`). Element n of `indices` (in the layer's own
    numbering) goes with channel `channels[n]` of the group; both are (n,) int64.
    """

    name: str
    module: nn.Module
    role: Role
    indices: Tensor
    channels: Tensor


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that can only be removed together, `size` of them, and the layers they run through.

    `sensitivity` holds what `measure_sensitivity` measured, by layer name; `seed` is for `random`.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    sensitivity: Mapping[str, Tensor]
    seed: int = 0


Criterion = Callable[[Group], Tensor]


def l1(group: Group) -> Tensor:
    """L1 norm of the channel's filter, averaged over the coupled layers (Li et al., 1608.08710)."""
    return _mean(group, _members(group, "out"), lambda member: _filters(member).abs().sum(1))


def l2(group: Group) -> Tensor:
    """L2 norm of the channel's filter, averaged over the coupled layers (Li et al., 1608.08710)."""
    return _mean(group, _members(group, "out"), lambda member: _filters(member).norm(dim=1))


def bn_scale(group: Group) -> Tensor:
    """Mean of abs(gamma) over the group's BatchNorm layers (Network Slimming, 1708.06519)."""
    return _mean(group, _norms(group, "bn_scale"), lambda member: _gamma(member).abs())


def bn_variance(group: Group) -> Tensor:
    """gamma^2 x the sum of squared outgoing weights: the variance handed to the next layers.

    A normalised channel has variance gamma^2, and a layer that reads it with weights w adds
    gamma^2 x sum(w^2) to the variance of its outputs. Of several BatchNorm layers in the group the
    mean gamma^2 counts; outgoing weights are summed over all layers that read the channel.
    """
    variance = _mean(group, _norms(group, "bn_variance"), lambda member: _gamma(member) ** 2)
    return variance * _sum(group, _members(group, "in"), _squared_readers)


def group_norm(group: Group) -> Tensor:
    """L2 norm over everything that goes with the channel (DepGraph, 2301.12900).

    Filters, the weights that read the channel in the next layers, and BatchNorm scales.
    """
    norms = [member for member in _members(group, "bn") if member.module.weight is not None]
    total = _sum(group, _members(group, "out"), lambda member: (_filters(member) ** 2).sum(1))
    total = total + _sum(group, _members(group, "in"), _squared_readers)
    return (total + _sum(group, norms, lambda member: _gamma(member) ** 2)).sqrt()


def taylor(group: Group) -> Tensor:
    """First-order change of the loss when the channel goes (Molchanov et al., 1906.10771).

    For each layer abs(sum of w x dL/dw over the channel's filter, bias, or gamma and beta), summed
    over the calibration batches; averaged over the coupled layers. The absolute value is taken for
    each batch, so gradients of opposite sign in two batches do not cancel.
    """
    producers = [member for member in group.members if member.role != "in"]
    known = [member for member in producers if member.name in group.sensitivity]
    if not known:
        raise PolicyError(
            f"criterion: 'taylor' must get gradients, but none reached {group.name!r}"
        )
    return _mean(group, known, lambda member: group.sensitivity[member.name][member.indices])


def random(group: Group) -> Tensor:
    """Uniform scores that depend on the group's seed alone: the control."""
    return torch.rand(group.size, generator=torch.Generator().manual_seed(group.seed))


CRITERIA: dict[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "bn_scale": bn_scale,
    "bn_variance": bn_variance,
    "group_norm": group_norm,
    "taylor": taylor,
    "random": random,
}
NEEDS_GRADIENTS = frozenset({"taylor"})


def measure_sensitivity(
    layers: Mapping[str, nn.Module], gradients: Callable[[], None]
) -> dict[str, Tensor]:
    """Sum over batches of abs(sum of w x dL/dw) for each output of each layer, (outputs,) each.

    `gradients` runs forward and backward once a calibration batch; what it leaves in `.grad` does
    not matter, gradients are taken as each backward pass delivers them and cleared. Run BatchNorm
    in evaluation mode: with batch statistics the loss does not depend on the scale of the filters
    before it, and their sum is zero for every channel. A layer no gradient reached is missing.
    """
    totals: dict[str, Tensor] = {}
    batch: dict[str, dict[nn.Parameter, Tensor]] = {}  # of each layer's backward pass under way

    def close(name: str) -> None:
        changes = batch.pop(name).values()
        totals[name] = totals.get(name, 0) + torch.stack(list(changes)).sum(0).abs()

    def hook(name: str, transposed: bool) -> Callable[[nn.Parameter], None]:
        def take(parameter: nn.Parameter) -> None:
            if parameter in batch.get(name, {}):
                close(name)
            assert parameter.grad is not None
            product = parameter.detach() * parameter.grad
            by_output = product.transpose(0, 1) if transposed and product.dim() > 1 else product
            summed = by_output.reshape(by_output.shape[0], -1).sum(1)  # (outputs,)
            batch.setdefault(name, {})[parameter] = summed.float().cpu()
            parameter.grad = None

        return take

    hooks = [
        parameter.register_post_accumulate_grad_hook(hook(name, isinstance(layer, Transposed)))
        for name, layer in layers.items()
        for parameter in layer.parameters(recurse=False)
    ]
    try:
        gradients()
    finally:
        for handle in hooks:
            handle.remove()
    for name in list(batch):
        close(name)
    return totals


def _members(group: Group, role: Role) -> list[Member]:
    return [member for member in group.members if member.role == role]


def _norms(group: Group, criterion: str) -> list[Member]:
    norms = [member for member in _members(group, "bn") if member.module.weight is not None]
    if not norms:
        raise PolicyError(
            f"criterion: {criterion!r} must have a BatchNorm scale for every channel it scores, "
            f"but {group.name!r} has none; 'l2' and 'group_norm' do without"
        )
    return norms


def _filters(member: Member) -> Tensor:
    """The filters of the member's channels, flattened, (n, weights)."""
    weight = _weight(member)
    if isinstance(member.module, Transposed):
        weight = weight.transpose(0, 1)
    return weight[member.indices].flatten(1)


def _squared_readers(member: Member) -> Tensor:
    """Sum of squares of the weights that read each of the member's channels, (n,)."""
    weight = _weight(member)
    if not isinstance(member.module, Transposed):
        weight = weight.transpose(0, 1)
    return (weight[member.indices].flatten(1) ** 2).sum(1)


def _gamma(member: Member) -> Tensor:
    return _weight(member)[member.indices]


def _weight(member: Member) -> Tensor:
    weight = member.module.weight
    assert isinstance(weight, Tensor)
    return weight.detach().float()


def _sum(group: Group, members: Iterable[Member], values: Callable[[Member], Tensor]) -> Tensor:
    total = torch.zeros(group.size)
    for member in members:
        total.index_add_(0, member.channels, values(member).cpu())
    return total


def _mean(group: Group, members: Iterable[Member], values: Callable[[Member], Tensor]) -> Tensor:
    members = list(members)
    count = _sum(group, members, lambda member: torch.ones(len(member.indices)))
    return _sum(group, members, values) / count.clamp_min(1)
