"""What a model's stages compute, for distillation between layers of the same name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn


@contextmanager
def watched_stages(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """By name the last output of each stage: of each child that holds layers of its own."""
    seen: dict[str, Tensor] = {}

    def see(name: str, _: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            seen[name] = output

    hooks = [
        child.register_forward_hook(partial(see, name))
        for name, child in model.named_children()
        if any(child.children())
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
