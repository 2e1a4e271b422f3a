"""Backbone features of the training images, computed once while the backbone stays as it is."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autocomp.files import cache_dir, write_bytes
from autocomp.models.captioner import Captioner

BATCH_SIZE = 8
"""What lies in a core's cache between layers: with 64 images a backbone takes twice as long."""


def backbone_features(model: Captioner, images: np.ndarray, images_id: str, keep: bool) -> Tensor:
    """Features (N, S, C) fp16 of images (N, H, W, 3), which `images_id` names.

    With `keep` they are stored in the cache, for the processes of a study to share; otherwise they
    are read from there if they are there, and held in memory if not.
    """
    path = _path(model, images_id)
    if not path.exists():
        features = _compute(model, images)
        if not keep:
            return torch.from_numpy(features)
        path.parent.mkdir(exist_ok=True)
        buffer = BytesIO()
        np.save(buffer, features)
        write_bytes(path, buffer.getbuffer())
    # copy-on-write: torch wants memory it could write to, the pages stay shared while nobody does
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _compute(model: Captioner, images: np.ndarray) -> np.ndarray:
    encoder = model.encoder
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    device = encoder.mean.device

    parts = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH_SIZE):
            batch = torch.from_numpy(np.array(images[start : start + BATCH_SIZE])).to(device)
            parts.append(encoder.features(batch).half().cpu().numpy())
    for module, training in modes.items():
        module.training = training
    return np.concatenate(parts)


def _path(model: Captioner, images_id: str) -> Path:
    """Where the features are kept: named after the backbone's weights and the images."""
    digest = hashlib.sha256(images_id.encode())
    for name, tensor in model.encoder.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(model.encoder.mean.cpu().numpy().tobytes())
    digest.update(model.encoder.std.cpu().numpy().tobytes())
    return cache_dir() / "features" / f"{digest.hexdigest()[:16]}.npy"
