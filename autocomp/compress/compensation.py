"""Compensated rounding: what one weight's rounding does to a layer, the weights after it make good.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(2210.17323), for linear layers and, their patches flattened, for convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocomp.compress.correction import Forward
from autocomp.compress.formats import LayerFormat, QuantizedTensor, encode, fit
from autocomp.compress.watching import watching

DAMPING = 0.01
"""Of the mean of the Hessian's diagonal, added to it: few inputs do not tell all directions."""
BLOCK = 128
"""Columns rounded before the rest is told; a multiple of every group size."""
MOST_INPUTS = 8192
"""A layer of more inputs is rounded to nearest: this many take 1.4 GB, its Hessian and factors."""
HESSIAN_BYTES = 2**28


def compensate(weight: Tensor, hessian: Tensor, fmt: LayerFormat) -> QuantizedTensor:
    """Round `weight` (rows, ...) to codes of `fmt` so that its layer computes nearly the same.

    `hessian` (K, K) is the sum of x x^T over the layer's inputs x (K,). Columns are rounded one
    after the other, those of the largest inputs first where columns share their scales, and the
    error of each is spread over those that follow.
    """
    rows = weight.detach().flatten(1).double().clone()  # (rows, K)
    order = torch.arange(rows.shape[1])
    if fmt.group_size is None:
        order = hessian.diagonal().argsort(descending=True, stable=True)
    rows, factor = rows[:, order], _inverse_factor(hessian, order)
    size = fmt.groups(weight.shape)[1]
    scales, zeros = _fit_all(rows, fmt)
    codes = torch.empty(rows.shape, dtype=torch.uint8)
    for start in range(0, rows.shape[1], BLOCK):
        end = min(start + BLOCK, rows.shape[1])
        errors = torch.zeros(len(rows), end - start, dtype=rows.dtype)
        for column in range(start, end):
            group = column // size
            if fmt.group_size is not None and column % size == 0:
                scales[:, group], zeros[:, group] = _fit_group(rows[:, column : column + size], fmt)
            own = rows[:, column]
            place = scales[:, group, None], zeros[:, group, None]
            code = encode(own.float()[:, None, None], *place, fmt).view(-1)
            codes[:, column] = code.to(torch.uint8)
            value = (code - zeros[:, group].float()) * scales[:, group].float()
            error = (own - value) / factor[column, column]
            rows[:, column + 1 : end] -= error.outer(factor[column, column + 1 : end])
            errors[:, column - start] = error
        rows[:, end:] -= errors @ factor[start:end, end:]
    in_order = torch.empty_like(codes)
    in_order[:, order] = codes
    return QuantizedTensor(fmt, in_order.view(weight.shape), scales, zeros if fmt.affine else None)


def _fit_all(rows: Tensor, fmt: LayerFormat) -> tuple[Tensor, Tensor]:
    """Scales and zero points that do not wait for the columns before them, or room for those."""
    if fmt.group_size is not None:
        shape = fmt.scale_shape(rows.shape)
        return torch.empty(shape, dtype=torch.float16), torch.empty(shape, dtype=torch.uint8)
    blocks = rows.reshape(1, 1, -1) if fmt.per_tensor else rows.unsqueeze(1)
    return fit(blocks.float(), fmt)


def _fit_group(group: Tensor, fmt: LayerFormat) -> tuple[Tensor, Tensor]:
    scales, zeros = fit(group.float().unsqueeze(1), fmt)  # each (rows, 1)
    return scales[:, 0], zeros[:, 0]


def _inverse_factor(hessian: Tensor, order: Tensor) -> Tensor:
    """The upper Cholesky factor of the damped Hessian's inverse, in double precision.

    Its rows and columns are in `order`. No more than two such matrices are held at a time.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(_damped(hessian, order)))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _damped(hessian: Tensor, order: Tensor) -> Tensor:
    damped = hessian[order[:, None], order].double()
    diagonal = damped.diagonal()
    diagonal += DAMPING * diagonal.mean() + torch.finfo(torch.float32).tiny
    return damped


def batched(layers: Mapping[str, nn.Module]) -> Iterator[list[str]]:
    """The names of `layers` in their order, as many at a time as there is memory for Hessians."""
    batch: list[str] = []
    taken = 0
    for name, layer in layers.items():
        size = 4 * layer.get_parameter("weight")[0].numel() ** 2
        if batch and taken + size > HESSIAN_BYTES:
            yield batch
            batch, taken = [], 0
        batch.append(name)
        taken += size
    if batch:
        yield batch


def hessians(
    model: nn.Module, weights: Mapping[str, Tensor], forwards: Sequence[Forward]
) -> dict[str, Tensor]:
    """The sum of x x^T over the inputs x (K,) of the layers that read each of `weights`.

    A weight is known by any layer that multiplies by it: an embedding's by the head it is tied to.
    One that no linear layer or plain convolution reads is not among the results.
    """
    found: dict[str, Tensor] = {}
    names = {id(weight): name for name, weight in weights.items()}

    def see(name: str, layer: nn.Module, x: Tensor) -> None:
        own = _second_moments(layer, x)
        found[name] = found[name].add_(own) if name in found else own

    with _watched(model, names, see):
        for forward in forwards:
            forward()
    return found


def is_compensable(layer: nn.Module) -> bool:
    """Whether all of a layer's inputs reach all of its rows, and are not too many.

    Of a convolution those at the borders must be known: they are zeros, in a number that is given.
    """
    is_plain = isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv2d)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )
    return is_plain and layer.get_parameter("weight")[0].numel() <= MOST_INPUTS


def _watched(
    model: nn.Module, names: Mapping[int, str], see: Callable[[str, nn.Module, Tensor], None]
) -> AbstractContextManager[None]:
    handles = []
    for layer in model.modules():
        name = names.get(id(getattr(layer, "weight", None)))
        if name is not None and is_compensable(layer):
            handles.append(
                layer.register_forward_pre_hook(
                    lambda layer, inputs, name=name: see(name, layer, inputs[0].detach())
                )
            )
    return watching(handles)


def _second_moments(layer: nn.Module, x: Tensor) -> Tensor:
    """Sum of x x^T (K, K) over what one call of `layer` multiplies its weight by."""
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str)
        geometry = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        total = torch.zeros(2 * [layer.weight[0].numel()])
        for image in x:  # one at a time: the patches of a batch may take a gigabyte
            patches = functional.unfold(image[None].float(), *geometry)[0]  # (K, places)
            total += patches @ patches.T
        return total
    rows = x.reshape(-1, x.shape[-1]).float()
    return rows.T @ rows
