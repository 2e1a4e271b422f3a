"""How captions are generated: the settings of what `autocomp.deploy.caption` does."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from autocomp.decisions import Decision
from autocomp.deploy import caption
from autocomp.tasks.base import Run


class Generation(Decision):
    """How captions are generated, for quality, latency, export and verify alike."""

    beam: int = Field(default=1, ge=1, le=16)
    max_length: int = Field(default=20, ge=1, le=256)
    length_penalty: float = Field(default=0.7, ge=0)


def generate(
    run: Run, images: np.ndarray, settings: Generation, steps: int | None = None
) -> list[list[int]]:
    """Token ids for images (B, H, W, 3); see `autocomp.deploy.caption.generate`."""
    return caption.generate(run, images, **settings.model_dump(), steps=steps)
