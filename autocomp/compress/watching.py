"""Looking at what layers compute while a model runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
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
