"""Hold parameters and BatchNorm statistics in fixed point, each tensor on a grid of its own."""

from __future__ import annotations

from torch import nn

from autocomp.compress.formats import Compressed
from autocomp.compress.grids import FixedFormat, fix_tensor
from autocomp.compress.quantize import quantizable_layers
from autocomp.errors import PolicyError, nearest
from autocomp.fields import value_for
from autocomp.patterns import matching
from autocomp.rounding import FixedPoint

DENSE_BITS = 32
STATISTICS = ("running_mean", "running_var")
Normalisation = nn.modules.batchnorm._BatchNorm


def fix_(compressed: Compressed, step: FixedPoint) -> list[str]:
    """Round what the matched layers hold, in place; returns what was skipped, and why.

    The module's tensors become the values that their codes stand for. What layers give is rounded
    when the model is lowered. `PolicyError` if nothing matches.
    """
    known = fixable_layers(compressed.module)
    names = matching(known, step.layers, step.exclude)
    if not names:
        close = nearest(step.layers[0], known)
        raise PolicyError(
            f"fixed_point.layers: must match a layer it can act on, but {list(step.layers)} "
            f"matches none; nearest: {', '.join(close) or 'none'}"
        )
    first_names = {name for name, _ in compressed.module.named_parameters()}
    for name in names:
        layer = compressed.module.get_submodule(name)
        widths = {
            key: value_for(name, step.bits, DENSE_BITS)
            for key, _ in layer.named_parameters(recurse=False)
            if f"{name}.{key}" in first_names
        }
        if isinstance(layer, Normalisation):
            widths |= dict.fromkeys(STATISTICS, step.batch_norm_bits)
        rounds = isinstance(layer, nn.Linear | nn.Conv2d)
        for key, bits in widths.items():
            if bits != DENSE_BITS:
                how = FixedFormat(
                    method=step.method,
                    bits=bits,
                    overflow=step.overflow,
                    activation_bits=step.activation_bits if rounds and key == "weight" else 32,
                )
                tensor = compressed.module.state_dict()[f"{name}.{key}"]
                compressed.fix_(f"{name}.{key}", fix_tensor(tensor, how))
    return []


def fixable_layers(model: nn.Module) -> list[str]:
    """The linear, embedding, convolution and BatchNorm layers by name."""
    layers = quantizable_layers(model)
    return [
        name
        for name, module in model.named_modules()
        if name in layers or (isinstance(module, Normalisation) and module.track_running_stats)
    ]
