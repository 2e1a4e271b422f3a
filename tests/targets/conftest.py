"""Every test of the targets draws the same weights and inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
