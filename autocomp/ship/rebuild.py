"""Makes the files a checkpoint runs from out of its packed weights: for whoever fetched no more."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from pathlib import Path

from autocomp.checkpoint.folder import (
    Checkpoint,
    is_whole,
    open_packed,
)
from autocomp.checkpoint.programs import program_of
from autocomp.errors import CheckpointError
from autocomp.files import write_bytes
from autocomp.provenance import versions
from autocomp.ship.fitting import fitting
from autocomp.targets import load_target
from autocomp.trust import trusting

log = logging.getLogger(__name__)


def rebuild(directory: Path | str, *, trust: bool = False) -> list[str]:
    """Write the runtime's files that the checkpoint in a folder lacks; returns their names.

    The folder must hold what `download_mb` counts: `model.safetensors`, `config.json`, and what
    inference needs beside the graphs. Each graph is compared with the SHA-256 that `config.json`
    has of it: one that comes out as other bytes, as another version of PyTorch or ONNX may have it,
    is not written and is a `CheckpointError`. So is anything missing, truncated or edited, and what
    fits together to no model. `trust` lets a task of the user's own (`kind: python`) run its code.
    """
    checkpoint = open_packed(directory)
    lacking = [name for name in checkpoint.config.graphs.values() if _lacks(checkpoint, name)]
    if lacking:
        with trusting(trust):
            _lower(checkpoint, lacking)
    program = program_of(checkpoint.config.task)
    if program is not None and _lacks(checkpoint, program[0]):
        name, content = program
        if checkpoint.config.files.get(name) == hashlib.sha256(content).hexdigest():
            write_bytes(checkpoint.directory / name, content)
            lacking.append(name)
        else:
            log.warning("%s: not written, for the checkpoint is of another autocomp", name)
    return lacking


def _lacks(checkpoint: Checkpoint, name: str) -> bool:
    return not is_whole(checkpoint.directory / name, checkpoint.config)


def _lower(checkpoint: Checkpoint, names: list[str]) -> None:
    """Write graphs anew, all of them or none."""
    config, compressed = checkpoint.config, fitting(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        graphs = checkpoint.task.graphs(compressed.module)
        load_target(config.target.kind).lower(graphs, compressed, made)
        for name in names:
            if not is_whole(made / name, config):
                raise CheckpointError(
                    f"{checkpoint.directory / name}: must come out as config.json has it, but "
                    f"other bytes do; the model card names the versions, here are {_versions()}"
                )
        for name in names:
            write_bytes(checkpoint.directory / name, (made / name).read_bytes())


def _versions() -> str:
    return ", ".join(f"{name} {versions()[name]}" for name in ("autocomp", "torch", "onnx"))
