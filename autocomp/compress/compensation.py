"""Compensated rounding: what one weight's rounding does to a layer, the weights after it make good.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(2210.17323), for linear layers and, their patches flattened, for convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocomp.compress.correction import Forward
from autocomp.compress.formats import LayerFormat, QuantizedTensor, candidates, encode
from autocomp.compress.watching import before, watching

DAMPING = 0.01
"""Of the mean of the Hessian's diagonal, added to it: few inputs do not tell all directions."""
CHOICE_BYTES = 2**26
"""Of the rows that are rounded at a time with every scale there is to choose from."""
LEAST_VARIANCE = 1e-3
"""Of the inputs' squares: what is less is what fp32 sums leave when they cancel."""
MOST_INPUTS = 8192
"""A layer of more inputs is rounded to nearest: this many take 1.4 GB, its Hessian and factors."""
HESSIAN_BYTES = 2**28


@dataclass
class Moments:
    """Sums over a layer's `count` inputs x: `first` of x, (K,), and `second` of x x^T, (K, K)."""

    count: int
    first: Tensor
    second: Tensor

    def add_(self, other: Moments) -> Moments:
        self.count += other.count
        self.first += other.first
        self.second += other.second
        return self

    def about_mean(self) -> Tensor:
        """The sum of x x^T of the inputs less their mean; of all of them if they hardly vary."""
        centred = self.second - self.first.outer(self.first) / self.count
        varies = centred.trace() > LEAST_VARIANCE * self.second.trace()
        return centred if varies else self.second


def compensate(weight: Tensor, hessian: Tensor, fmt: LayerFormat) -> QuantizedTensor:
    """Round `weight` (rows, ...) to codes of `fmt` so that its layer computes nearly the same.

    `hessian` (K, K) is the sum of x x^T over the layer's inputs x (K,). Columns are rounded one
    after the other, those of the largest inputs first where columns share their scales, and the
    error of each is spread over those that follow. Each scale is chosen when its columns' turn has
    come, by the error that their rounding leaves for good.
    """
    rows = weight.detach().flatten(1).double()  # (rows, K)
    order = torch.arange(rows.shape[1])
    if fmt.group_size is None:
        order = hessian.diagonal().argsort(descending=True, stable=True)
    left, factor = rows[:, order], _inverse_factor(hessian, order)
    size = fmt.groups(weight.shape)[1]
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(order), size):
        own, ahead = slice(start, start + size), slice(start + size, None)
        scales, zeros = _choose(left[:, own], factor[own, own], fmt)
        codes, errors = _round(left[:, own], factor[own, own], scales, zeros, fmt)
        left[:, ahead] -= errors @ factor[own, ahead]
        found.append((codes, scales, zeros))
    codes, scales, zeros = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    in_order = torch.empty_like(codes)
    in_order[:, order] = codes
    return QuantizedTensor(fmt, in_order.view(weight.shape), scales, zeros if fmt.affine else None)


def _round(
    rows: Tensor, factor: Tensor, scales: Tensor, zeros: Tensor, fmt: LayerFormat
) -> tuple[Tensor, Tensor]:
    """The codes of `rows` (..., columns) and what the rounding of each hands on, both of its shape.

    The squares of the latter are the error that is left once all columns to come have made good
    what they can. `scales` and `zeros` are (..., 1), `factor` (columns, columns).
    """
    columns = rows.shape[-1]
    if columns == 1:
        codes = encode(rows.float(), scales, zeros, fmt)
        return codes, (rows - (codes.float() - zeros.float()) * scales.float()) / factor
    half = columns // 2
    codes, errors = _round(rows[..., :half], factor[:half, :half], scales, zeros, fmt)
    rest = rows[..., half:] - errors @ factor[:half, half:]
    others, more = _round(rest, factor[half:, half:], scales, zeros, fmt)
    return torch.cat([codes, others], dim=-1), torch.cat([errors, more], dim=-1)


def _choose(rows: Tensor, factor: Tensor, fmt: LayerFormat) -> tuple[Tensor, Tensor]:
    """The scales and zero points (rows or 1, 1) with which compensated `rows` err least."""
    blocks = rows.reshape(1, 1, -1) if fmt.per_tensor else rows.unsqueeze(1)
    scales, zeros = candidates(blocks.float(), fmt)  # (choices, rows or 1, 1)
    if len(scales) == 1:
        return scales[0], zeros[0]
    at_once = max(1, CHOICE_BYTES // (8 * len(scales) * rows.shape[1]))
    losses = []
    for start in range(0, len(rows), at_once):
        few = slice(start, start + at_once)
        grid = [one.expand(-1, len(rows), -1)[:, few] for one in (scales, zeros)]
        own = rows[few].expand(len(scales), -1, -1)
        losses.append(_round(own, factor, grid[0], grid[1], fmt)[1].square().sum(dim=2))
    total = torch.cat(losses, dim=1)  # (choices, rows)
    if fmt.per_tensor:
        total = total.sum(dim=1, keepdim=True)
    best = total.argmin(dim=0)[None, :, None]
    return scales.gather(0, best)[0], zeros.gather(0, best)[0]


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


def moments(
    model: nn.Module, weights: Mapping[str, Tensor], forwards: Sequence[Forward]
) -> dict[str, Moments]:
    """The moments of the inputs of the layers that read each of `weights`.

    A weight is known by any layer that multiplies by it: an embedding's by the head it is tied to.
    One that no linear layer or plain convolution reads is not among the results.
    """
    found: dict[str, Moments] = {}
    names = {id(weight): name for name, weight in weights.items()}

    def see(name: str, layer: nn.Module, x: Tensor) -> None:
        own = _moments(layer, x)
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
            handles.append(before(layer, partial(see, name, layer)))
    return watching(handles)


def _moments(layer: nn.Module, x: Tensor) -> Moments:
    """The moments of what one call of `layer` multiplies its weight by."""
    if not isinstance(layer, nn.Conv2d):
        rows = x.reshape(-1, x.shape[-1]).float()
        return Moments(len(rows), rows.sum(dim=0), rows.T @ rows)
    assert not isinstance(layer.padding, str)
    geometry = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    width = layer.weight[0].numel()
    total = Moments(0, torch.zeros(width), torch.zeros(width, width))
    for image in x:  # one at a time: the patches of a batch may take a gigabyte
        patches = functional.unfold(image[None].float(), *geometry)[0]  # (K, places)
        total.add_(Moments(patches.shape[1], patches.sum(dim=1), patches @ patches.T))
    return total
