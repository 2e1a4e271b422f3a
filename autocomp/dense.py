"""The dense model: trained once, and cached by everything it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import nn

from autocomp.checkpoint.folder import is_checkpoint, open_packed
from autocomp.checkpoint.packing import unpack
from autocomp.errors import CheckpointError, TrialStopped, UserError
from autocomp.files import cache_dir, resolve_path, write_folder
from autocomp.models.reshape import tensors
from autocomp.retrain.loop import retrain_
from autocomp.tasks.base import Task
from autocomp.tasks.dense import DenseSettings

RECIPE = 4
"""Raised when the models or the training loop change what the same settings train to."""
WEIGHTS = "model.safetensors"
INITIAL = "initial.safetensors"

Progress = Callable[[int, int, float], None]


def dense_model(
    task: Task,
    settings: DenseSettings,
    fingerprint: str,
    seed: int,
    on_step: Progress | None = None,
) -> nn.Module:
    """The trained dense model, in evaluation mode.

    It is read from a user's checkpoint, from the cache, or trained now and cached, stage by stage,
    together with the weights it started from. `fingerprint` names what the task depends on beside
    `settings`.
    """
    model = task.build()
    if settings.checkpoint is not None:
        path = resolve_path(settings.checkpoint, "task.dense.checkpoint", UserError)
        if path.is_dir():
            task.check_assets(path)
        try:
            return _load(model, path / WEIGHTS if path.is_dir() else path)
        except CheckpointError as mistake:
            raise CheckpointError(f"task.dense.checkpoint: {mistake}") from None
    cache = cache_dir() / "dense"
    cache.mkdir(exist_ok=True)
    folder = cache / dense_key(settings, fingerprint, seed)
    with FileLock(cache / f"{folder.name}.lock"):  # another search may be training it
        if not (folder / WEIGHTS).exists():
            _train(model, task, settings, fingerprint, seed, on_step)
    return _load(model, folder / WEIGHTS)


def dense_key(settings: DenseSettings, fingerprint: str, seed: int) -> str:
    """The name under which a dense model is cached."""
    parts: dict[str, Any] = {
        "recipe": RECIPE,
        "torch": torch.__version__,
        "dense": settings.model_dump(mode="json", exclude_defaults=True),
        "task": fingerprint,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _train(
    model: nn.Module,
    task: Task,
    settings: DenseSettings,
    fingerprint: str,
    seed: int,
    on_step: Progress | None,
) -> None:
    """Train `model` in place, caching it after each stage: a later run goes on from the last."""
    initial = {name: tensor.clone() for name, tensor in tensors(model).items()}
    total = sum(stage.steps for stage in settings.stages)
    done = 0
    for index, stage in enumerate(settings.stages):
        so_far = DenseSettings(stages=settings.stages[: index + 1])
        folder = cache_dir() / "dense" / dense_key(so_far, fingerprint, seed)

        def report(step: int, _: int, loss: float, before: int = done) -> None:
            if on_step:
                on_step(before + step, total, loss)

        if (folder / WEIGHTS).exists():
            _load(model, folder / WEIGHTS)
        else:
            try:
                retrain_(model, stage, task, seed=seed + index, on_step=report)
            except TrialStopped as stop:
                raise UserError(
                    f"task.dense.stages.{index}: must train to a finite loss, but {stop}"
                ) from None
            _save(model, initial, folder)
        done += stage.steps


def _save(model: nn.Module, initial: dict[str, torch.Tensor], folder: Path) -> None:
    def fill(path: Path) -> None:
        save_file(initial, path / INITIAL)
        save_file({n: t.contiguous() for n, t in tensors(model).items()}, path / WEIGHTS)

    write_folder(folder, fill)


def _load(model: nn.Module, path: Path) -> nn.Module:
    try:
        values = load_file(path)
    except Exception as failure:
        raise CheckpointError(f"{path}: must be a safetensors file, but {failure}") from None
    if path.name == WEIGHTS and is_checkpoint(path.parent):  # its tensors may lie together
        values, _, _ = unpack(values, open_packed(path.parent).config.tensors)
    wanted = {name: tensor.shape for name, tensor in tensors(model).items()}
    wrong = [n for n, shape in wanted.items() if n not in values or values[n].shape != shape]
    if wrong:
        raise CheckpointError(
            f"{path}: must hold every tensor of the dense model, but {len(wrong)} are absent or of "
            f"another shape, {wrong[0]!r} first"
        )
    surplus = sorted(values.keys() - model.state_dict().keys())
    if surplus:
        raise CheckpointError(
            f"{path}: must hold the dense model's tensors alone, but {len(surplus)} are of layers "
            f"that it has not, {surplus[0]!r} first"
        )
    model.load_state_dict({name: values[name] for name in wanted}, strict=False)
    return model.eval()
