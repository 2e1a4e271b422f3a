"""What a model costs, counted on the modules it runs: parameters, non-zeros, multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


class CountedGraph(Protocol):
    """The part of a task's `Graph` that counting needs."""

    @property
    def module(self) -> nn.Module: ...
    @property
    def inputs(self) -> dict[str, Tensor]: ...
    @property
    def sequential(self) -> bool: ...


def count_parameters(model: nn.Module) -> dict[str, float]:
    """`params` and `nonzeros` over all parameters, a shared one counted once."""
    parameters = list(model.parameters())
    return {
        "params": float(sum(p.numel() for p in parameters)),
        "nonzeros": float(sum(int(torch.count_nonzero(p)) for p in parameters)),
    }


def count_macs(graphs: Mapping[str, CountedGraph], steps: int) -> float:
    """Multiply-adds of one inference at the graphs' example inputs.

    Convolutions, matrix products and attention count; a sequential graph counts `steps` times.
    """
    total = 0.0
    for graph in graphs.values():
        counter = FlopCounterMode(display=False)
        # the fused attention of the CPU would count as nothing
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            graph.module(*graph.inputs.values())
        total += counter.get_total_flops() / 2 * (steps if graph.sequential else 1)
    return total
