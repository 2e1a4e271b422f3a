"""Hold parameters and BatchNorm statistics in fixed point, each tensor on a grid of its own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from autocomp.compress.correction import Normalisation
from autocomp.compress.formats import FLOAT_BITS, Compressed
from autocomp.compress.grids import FixedFormat, fix_tensor
from autocomp.compress.quantize import Layer, left_out
from autocomp.errors import PolicyError, first_of, nearest
from autocomp.fields import value_for
from autocomp.patterns import matching
from autocomp.rounding import FixedPoint

STATISTICS = ("running_mean", "running_var")


def fix_(compressed: Compressed, step: FixedPoint) -> list[str]:
    """Round what the matched layers hold, in place; returns what was skipped, and why.

    The module's tensors become the values that their codes stand for. What layers give is rounded
    when the model is lowered. `PolicyError` if nothing matches.
    """
    model = compressed.module
    known = fixable_layers(model)
    names = matching(known, step.layers, step.exclude)
    if not names:
        close = nearest(step.layers[0], known)
        raise PolicyError(
            f"fixed_point.layers: must match a layer it can act on, but {list(step.layers)} "
            f"matches none; nearest: {', '.join(close) or 'none'}"
        )
    held = model.state_dict()
    for name, bits in _widths(model, names, step).items():
        if bits < FLOAT_BITS:
            how = FixedFormat(method=step.method, bits=bits, overflow=step.overflow)
            compressed.fix_(name, fix_tensor(held[name], how))
    own = {f"{name}.{key}" for name in known for key in model.get_submodule(name).state_dict()}
    unknown = {name for name, _ in model.named_parameters()} - own
    return _round_results_(compressed, names, step) + left_out(model, step, unknown)


def _widths(model: nn.Module, names: Sequence[str], step: FixedPoint) -> dict[str, int]:
    """The bits of what layers hold, by tensor; a shared one goes by its first name."""
    first_names = _first_names(model)
    widths: dict[str, int] = {}
    for name in names:
        layer = model.get_submodule(name)
        bits = value_for(name, step.bits, FLOAT_BITS)
        for key, _ in layer.named_parameters(recurse=False):
            if f"{name}.{key}" in first_names:
                widths[f"{name}.{key}"] = bits
        if isinstance(layer, Normalisation):
            widths |= {f"{name}.{key}": step.batch_norm_bits for key in STATISTICS}
    return widths


def _round_results_(compressed: Compressed, names: Sequence[str], step: FixedPoint) -> list[str]:
    """Say how what the layers give is rounded; the layers that round it already, and why."""
    if step.activation_bits == FLOAT_BITS:
        return []
    how = FixedFormat(method=step.method, bits=step.activation_bits, overflow=step.overflow)
    multiplied = {
        id(layer.weight)
        for layer in compressed.module.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    owners = {id(one): name for name, one in compressed.module.named_parameters()}
    integers, shared = [], []
    for name in names:
        weight = compressed.module.get_submodule(name).weight
        owner = owners.get(id(weight), "").removesuffix(".weight")
        quantized = compressed.quantized.get(f"{name}.weight")
        if quantized is not None and quantized.format.ranges is not None:
            integers.append(name)
        elif id(weight) not in multiplied:
            continue
        elif owner == name:
            compressed.results[f"{name}.weight"] = how
        elif owner not in names:
            shared.append(name)
    reasons = {
        "activations stay in 8 bits, as an earlier quantize step says": integers,
        "results are rounded where the layer that they share their weight with is": shared,
    }
    return [f"{first_of(those)}: {reason}" for reason, those in reasons.items() if those]


def fixable_layers(model: nn.Module) -> list[str]:
    """The linear, embedding, convolution and BatchNorm layers with something of their own.

    A head that is tied to an embedding has its bias, if any.
    """
    first_names = _first_names(model)
    return [
        name
        for name, module in model.named_modules()
        if (isinstance(module, Normalisation) and module.track_running_stats)
        or (
            isinstance(module, Layer)
            and any(f"{name}.{key}" in first_names for key, _ in module.named_parameters())
        )
    ]


def _first_names(model: nn.Module) -> set[str]:
    """The names of all parameters, of a shared one the first."""
    return {name for name, _ in model.named_parameters()}
