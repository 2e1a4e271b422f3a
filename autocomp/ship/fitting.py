"""Whether the tensors of a file make a model: each may be whole, and not fit the next."""

from __future__ import annotations

import torch
from torch import nn

from autocomp.checkpoint.folder import CONFIG, Checkpoint
from autocomp.compress.formats import Compressed
from autocomp.errors import CheckpointError
from autocomp.tasks.base import Task


def fitting(checkpoint: Checkpoint) -> Compressed:
    """The model rebuilt from the packed weights; `CheckpointError` if PyTorch cannot run it.

    The shapes are the file's, all else is the task's. So what goes wrong with the dense model too
    is no fault of the file, and is raised as it is.
    """
    compressed = checkpoint.compressed()
    try:
        _run(checkpoint.task, compressed.module)
    except Exception as failure:
        _run(checkpoint.task, checkpoint.task.build().eval())
        raise CheckpointError(
            f"{checkpoint.directory / CONFIG}: tensors must have shapes that fit together, but "
            f"{' '.join(str(failure).split())}"
        ) from None
    return compressed


def _run(task: Task, model: nn.Module) -> None:
    with torch.no_grad():
        for graph in task.graphs(model).values():
            graph.module(*graph.inputs.values())
