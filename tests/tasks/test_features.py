"""Backbone features are computed once for each backbone and set of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_captioner, tiny_task

from autocomp.models.cnn_transformer import CnnTransformer
from autocomp.tasks import features
from autocomp.tasks.features import backbone_features


@pytest.fixture
def cache(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOCOMP_CACHE", str(tmp_path))
    return tmp_path / "features"


@pytest.fixture
def model(cache: Path) -> CnnTransformer:
    return tiny_captioner(tiny_task())


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("keep", [True, False])
def test_they_are_those_of_the_encoder(
    keep: bool, model: CnnTransformer, images: np.ndarray, cache: Path
) -> None:
    model.train()
    found = backbone_features(model, images, "images", keep)
    assert found.shape == (70, 16, 128)
    assert found.dtype == torch.float16
    assert model.encoder.training
    with torch.no_grad():
        expected = model.eval().encoder.features(torch.from_numpy(images))
    torch.testing.assert_close(found.float(), expected, atol=5e-3, rtol=2e-3)
    assert cache.exists() == keep


def test_kept_features_are_not_computed_again(
    model: CnnTransformer, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = backbone_features(model, images, "images", keep=True)
    with torch.no_grad():
        model.decoder.embedding.weight.zero_()  # not the backbone's

    def refuse(*_: object) -> np.ndarray:
        raise AssertionError("computed again")

    monkeypatch.setattr(features, "_compute", refuse)
    for keep in (True, False):
        assert torch.equal(backbone_features(model, images, "images", keep), first)


@pytest.mark.parametrize("change", ["weights", "statistics", "images"])
def test_other_features_go_by_another_name(
    change: str, model: CnnTransformer, images: np.ndarray, cache: Path
) -> None:
    backbone_features(model, images, "images", keep=True)
    with torch.no_grad():
        if change == "weights":
            model.encoder.backbone.conv_stem.weight[0, 0, 0, 0] += 1
        elif change == "statistics":
            model.encoder.backbone.bn_stem.running_mean[0] += 1
    name = "others" if change == "images" else "images"
    backbone_features(model, images, name, keep=True)
    assert len(list(cache.iterdir())) == 2
