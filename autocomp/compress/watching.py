"""Looking at what layers compute while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def watching(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Without gradients, and with `hooks` for as long as it lasts."""
    handles = list(hooks)
    try:
        with torch.no_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()


def before(layer: nn.Module, see: Callable[[Tensor], None]) -> RemovableHandle:
    """Let `see` have what comes into `layer`, by position or by name, whenever it is called."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        see((*args, *kwargs.values())[0])

    return layer.register_forward_pre_hook(hook, with_kwargs=True)
