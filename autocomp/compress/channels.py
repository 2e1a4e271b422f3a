"""Removes convolution channels, coupled layers together; the only module that knows torch_pruning.

torch_pruning traces the model and says which layers' channels go together (DepGraph, 2301.12900)
and cuts them; which channels go is decided here. What it says is checked before and after, because
it follows some operations wrongly without an error (zero-padded shortcuts, channel shuffles).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch_pruning.ops import OPTYPE

from autocomp.compress.channel_budget import SCOPES
from autocomp.compress.channel_check import Names, check_same, is_depthwise, masked_forward, tensors
from autocomp.compress.importance import (
    CRITERIA,
    NEEDS_GRADIENTS,
    Group,
    Member,
    Role,
    measure_sensitivity,
)
from autocomp.errors import PolicyError, nearest
from autocomp.fields import value_for
from autocomp.patterns import matching
from autocomp.policy import PruneChannels

Inputs = Tensor | tuple[Tensor, ...]

_OPERATIONS = frozenset(
    {
        OPTYPE.CONCAT,
        OPTYPE.SPLIT,
        OPTYPE.ELEMENTWISE,
        OPTYPE.RESHAPE,
        OPTYPE.UNBIND,
        OPTYPE.EXPAND,
        OPTYPE.SLICE,
        OPTYPE.PRELU,
        OPTYPE.IN,
    }
)
_LAYERS = frozenset({OPTYPE.CONV, OPTYPE.DEPTHWISE_CONV, OPTYPE.LINEAR, OPTYPE.BN})


@dataclass(frozen=True, eq=False)
class _Coupled:
    """A group, its convolutions, and why it must be left alone, if it must.

    `names` are the convolutions whose filters go, depthwise ones aside, in the model's order.
    """

    group: Group
    names: tuple[str, ...]
    reason: str | None


def channel_layers(module: nn.Module, example_inputs: Inputs) -> list[str]:
    """Names of the Conv2d layers whose output channels can be removed, in the model's order.

    Depthwise convolutions are not among them: they follow the layer that feeds them.
    """
    names = _names(module)
    inputs = _as_tuple(example_inputs)
    with _traced(module, inputs) as graph:
        coupled = _coupled(graph, module, inputs, names)
    found = {name for one in coupled if one.reason is None for name in one.names}
    return [name for name in names.values() if name in found]


def prune_channels_(
    module: nn.Module,
    step: PruneChannels,
    example_inputs: Inputs,
    gradients: Callable[[], None] | None = None,
    seed: int = 0,
) -> list[str]:
    """Remove channels of the convolutions `step` means, in place; what was left alone, and why.

    `module` is run on `example_inputs` (positional); its outputs keep their shapes. Coupled layers
    lose the same channels, and their ratio is the mean over those the step matches. `gradients`
    runs forward and backward once a calibration batch, for criteria that need it (see
    `measure_sensitivity`); the module is in evaluation mode when it is called. Each line returned
    is "layer: reason".

    Raises `PolicyError` if the step matches no convolution, if its criterion cannot score one, or
    if the pruned module does not compute what the dense one does without the channels.
    """
    ratio_of = step.ratio if isinstance(step.ratio, dict) else {"": step.ratio}
    if not any(ratio_of.values()):
        return []
    names = _names(module)
    inputs = _as_tuple(example_inputs)
    with _traced(module, inputs) as graph:
        coupled = _coupled(graph, module, inputs, names)
        chosen, ratios, skipped = _matched(coupled, step)
        if not chosen:
            return skipped
        groups = _with_evidence([one.group for one in chosen], step, gradients, seed)
        module.eval()  # whatever mode the gradients were taken in
        scores = [CRITERIA[step.criterion](group) for group in groups]
        removed = SCOPES[step.scope](scores, ratios, step.round_to)
        removals = [pair for pair in zip(groups, removed, strict=True) if len(pair[1])]
        expected = masked_forward(module, inputs, removals, names)
        for group, channels in removals:
            _cut(graph, group, channels)
        check_same(module, inputs, expected)
    if step.scope == "local":
        skipped += _unchanged(chosen, ratios, removed, step.round_to)
    return skipped


def _matched(
    coupled: list[_Coupled], step: PruneChannels
) -> tuple[list[_Coupled], list[float], list[str]]:
    """The groups to prune with their ratios, and a line for each matched layer left alone."""
    known = [name for one in coupled for name in one.names]
    if not matching(known, step.layers):
        close = [name for pattern in step.layers for name in nearest(pattern, known)]
        hint = f"; the nearest are {', '.join(close)}" if close else ""
        raise PolicyError(
            "prune_channels.layers: must match a convolution, "
            f"but {', '.join(map(repr, step.layers))} matches none{hint}"
        )
    chosen: list[_Coupled] = []
    ratios: list[float] = []
    skipped: list[str] = []
    for one in coupled:
        wanted = matching(one.names, step.layers, step.exclude)
        each = [value_for(name, step.ratio, 0.0) for name in wanted]
        if not any(each):
            continue
        losing = [member.name for member in one.group.members if member.role != "in"]
        kept = matching(losing, step.exclude)
        reason = f"coupled to {kept[0]}, which is excluded" if kept else one.reason
        if reason:
            skipped += [f"{name}: {reason}" for name in wanted]
        else:
            chosen.append(one)
            ratios.append(sum(each) / len(each))
    return chosen, ratios, skipped


def _unchanged(
    chosen: list[_Coupled], ratios: list[float], removed: list[Tensor], round_to: int
) -> list[str]:
    return [
        f"{name}: {ratio:g} of {one.group.size} channels, rounded to {round_to}, removes none"
        for one, ratio, channels in zip(chosen, ratios, removed, strict=True)
        if not len(channels)
        for name in one.names
    ]


def _with_evidence(
    groups: list[Group], step: PruneChannels, gradients: Callable[[], None] | None, seed: int
) -> list[Group]:
    """The groups with what the step's criterion needs beside the weights."""
    sensitivity: Mapping[str, Tensor] = {}
    if step.criterion in NEEDS_GRADIENTS:
        if gradients is None:
            raise PolicyError(
                f"prune_channels.criterion: {step.criterion!r} must have calibration batches, "
                "but got none"
            )
        layers = {m.name: m.module for group in groups for m in group.members if m.role != "in"}
        with torch.enable_grad():
            sensitivity = measure_sensitivity(layers, gradients)
    return [
        replace(group, sensitivity=sensitivity, seed=zlib.crc32(f"{seed} {group.name}".encode()))
        for group in groups
    ]


def _coupled(
    graph: Any, module: nn.Module, inputs: tuple[Tensor, ...], names: Names
) -> list[_Coupled]:
    """The graph's groups, each checked on half of its channels, chosen at random."""
    coupled = list(_groups(graph, module, names))
    generator = torch.Generator().manual_seed(0)
    trial = {
        one.group: torch.randperm(one.group.size, generator=generator)[: (one.group.size + 1) // 2]
        for one in coupled
        if one.reason is None
    }
    if not masked_forward(module, inputs, trial.items(), names).problems:
        return coupled
    for position, one in enumerate(coupled):
        if one.reason is None:
            alone = [(one.group, trial[one.group])]
            problems = masked_forward(module, inputs, alone, names).problems
            coupled[position] = replace(one, reason=problems[0] if problems else None)
    return coupled


def _groups(graph: Any, module: nn.Module, names: Names) -> Iterator[_Coupled]:
    """Every set of channels that go together and that some convolution (not depthwise) writes."""
    seen: set[nn.Module] = set()
    for root in module.modules():
        if not _is_root(root) or root in seen or root not in graph.module2node:
            continue
        assert isinstance(root, nn.Conv2d)
        try:
            items = _traced_group(graph, root, range(root.out_channels)).items
        except (IndexError, TypeError, ValueError) as failure:  # torch_pruning's own
            lost = f"torch_pruning cannot follow its channels ({failure})"
            yield _Coupled(Group(names[root], root.out_channels, (), {}), (names[root],), lost)
            continue
        members = tuple(_member(item, names) for item in items if item.dep.target.type in _LAYERS)
        written = {member.module for member in members if member.role == "out"}
        seen |= written
        yield _Coupled(
            Group(names[root], root.out_channels, members, sensitivity={}),
            tuple(name for layer, name in names.items() if layer in written and _is_root(layer)),
            next((reason for item in items if (reason := _refusal(item, names))), None),
        )


def _is_root(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and not is_depthwise(layer)


def _member(item: Any, names: Names) -> Member:
    layer = item.dep.target.module
    role: Role = "out"
    if item.dep.target.type == OPTYPE.BN:
        role = "bn"
    elif item.dep.handler.__name__ == "prune_in_channels" and not is_depthwise(layer):
        role = "in"
    return Member(names[layer], layer, role, torch.tensor(item.idxs), torch.tensor(item.root_idxs))


def _refusal(item: Any, names: Names) -> str | None:
    """Why torch_pruning cannot be trusted with this part of a group, if it cannot."""
    layer, kind = item.dep.target.module, item.dep.target.type
    if isinstance(layer, _ConvNd) and layer.groups > 1 and not is_depthwise(layer):
        return f"coupled to {names[layer]}, a convolution in {layer.groups} groups"
    if kind == OPTYPE.OUTPUT:
        return "its channels are the model's output"
    if kind not in _LAYERS and kind not in _OPERATIONS:
        return f"coupled to {names.get(layer, 'a parameter')} ({type(layer).__name__})"
    return None


@torch.no_grad()
def _cut(graph: Any, group: Group, channels: Tensor) -> None:
    root = group.members[0].module
    _traced_group(graph, root, channels.tolist()).prune(record_history=False)


def _traced_group(graph: Any, root: nn.Module, channels: Iterable[int]) -> Any:
    cut = graph.get_pruner_of_module(root).prune_out_channels
    return graph.get_pruning_group(root, cut, list(channels))


@contextmanager
def _traced(module: nn.Module, inputs: tuple[Tensor, ...]) -> Iterator[Any]:
    """torch_pruning's graph of the module, which is in evaluation mode meanwhile.

    Every parameter is trainable meanwhile, because the trace follows gradients.
    """
    modes = {layer: layer.training for layer in module.modules()}
    trainable = {name: one.requires_grad for name, one in module.named_parameters()}
    module.eval().requires_grad_(True)
    graph = torch_pruning.DependencyGraph()
    try:
        with torch.enable_grad():
            graph.build_dependency(
                module,
                inputs,
                forward_fn=lambda model, given: tensors(model(*given)),
                verbose=False,
            )
        yield graph
    finally:
        # nodes refer to each other, the weights and the activations; left to the garbage
        # collector, which counts objects and not bytes, they pile up over many prunings
        for node in getattr(graph, "module2node", {}).values():
            vars(node).clear()
        module.zero_grad(set_to_none=True)
        for layer, training in modes.items():
            layer.training = training
        for name, parameter in module.named_parameters():  # pruning replaces the parameters
            parameter.requires_grad_(trainable[name])


def _names(module: nn.Module) -> Names:
    return {layer: name for name, layer in module.named_modules()}


def _as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    return (inputs,) if isinstance(inputs, Tensor) else inputs
