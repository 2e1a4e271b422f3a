"""Drop whole layers; those that stay keep their weights and the names they had."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from autocomp.compress.watching import watching
from autocomp.errors import PolicyError, nearest
from autocomp.models.transformer import DecoderLayer
from autocomp.policy import DropLayers

Forward = Callable[[], None]
"""Runs the model over the calibration batches."""


def drop_layers_(model: nn.Module, step: DropLayers, forward: Forward) -> list[str]:
    """Keep `keep` layers of the container `layers`; returns what was skipped, and why.

    Only `block_influence` calls `forward`. `PolicyError` for fewer than `fewest`.
    """
    containers = layer_containers(model)
    if step.layers not in containers:
        close = nearest(step.layers, containers)
        raise PolicyError(
            f"drop_layers.layers: must name a container of layers, but got {step.layers!r}; "
            f"nearest: {', '.join(close) or 'none'}"
        )
    container = containers[step.layers]
    if len(container) == step.keep:
        return []
    if len(container) < step.keep:
        return [f"{step.layers}: asked to keep {step.keep} layers, and it has {len(container)}"]
    if step.keep < fewest(container):
        raise PolicyError(f"drop_layers.keep: must be at least 1 for {step.layers!r}, but got 0")
    kept = SELECTIONS[step.select](container, step.keep, forward)
    for index in [index for index in container if index not in kept]:
        del container[index]
    return []


def layer_containers(model: nn.Module) -> dict[str, nn.ModuleDict]:
    """The containers whose layers can be dropped, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleDict) and len(module) > 0
    }


def fewest(container: nn.ModuleDict) -> int:
    """How few layers may be kept: layers that attend to another part's memory can't all go."""
    return int(any(isinstance(layer, DecoderLayer) for layer in container.values()))


def uniform(container: nn.ModuleDict, keep: int, forward: Forward) -> Sequence[str]:
    """First, last and evenly between: int((L - 1) i / (d - 1)); a single one is the last."""
    names = list(container)
    if keep <= 1:
        return names[len(names) - keep :]
    return [names[(len(names) - 1) * i // (keep - 1)] for i in range(keep)]


def first(container: nn.ModuleDict, keep: int, forward: Forward) -> Sequence[str]:
    """The `keep` layers nearest to the input."""
    return list(container)[:keep]


def last(container: nn.ModuleDict, keep: int, forward: Forward) -> Sequence[str]:
    """The `keep` layers nearest to the output."""
    return list(container)[len(container) - keep :]


def block_influence(container: nn.ModuleDict, keep: int, forward: Forward) -> Sequence[str]:
    """The layers that change their input most: 1 - mean cosine(input, output) (2403.03853)."""
    cosines: dict[str, list[float]] = {name: [] for name in container}

    def record(
        name: str, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor
    ) -> None:
        x = (*args, *kwargs.values())[0]
        cosine = functional.cosine_similarity(x.float(), output.float(), dim=-1)
        cosines[name].append(float(cosine.mean()))

    hooks = [
        layer.register_forward_hook(partial(record, name), with_kwargs=True)
        for name, layer in container.items()
    ]
    with watching(hooks):
        forward()
    influence = {name: 1 - sum(seen) / len(seen) for name, seen in cosines.items()}
    ranked = sorted(influence, key=lambda name: -influence[name])
    return ranked[:keep]


SELECTIONS: dict[str, Callable[[nn.ModuleDict, int, Forward], Sequence[str]]] = {
    "uniform": uniform,
    "first": first,
    "last": last,
    "block_influence": block_influence,
}
