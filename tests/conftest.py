"""A whole study of a tiny captioner, searched once a session: what export, verify and load act on.

It has a dense model, a control and a few policies, all trained, exported and measured for real in
some ten seconds. Tests read it; whoever wants to change it copies it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from autocomp.bench import Bench
    from autocomp.work import Work

settings.register_profile("any machine", deadline=None)  # a busy one is slow, not wrong
settings.load_profile("any machine")

TINY_SPACE: dict[str, Any] = {
    "task": {
        "kind": "captioning",
        "data": {"kind": "scenes", "train": 48, "dev": 16, "test": 16, "image_size": 32},
        "model": {
            "kind": "cnn_transformer",
            "d_model": 32,
            "heads": 2,
            "ffn": 64,
            "decoder_layers": 2,
        },
        "generation": {"max_length": 16},
        "dense": {"steps": 100, "lr": 5.0e-3, "batch_size": 16},
        "min_count": 1,
        "captions_per_image": 2,
    },
    "target": {"kind": "onnxruntime"},
    "objectives": {"cider": "maximize", "size_mb": "minimize", "latency_ms": "minimize"},
    "policy": {
        "steps": [
            {"kind": "prune_channels", "layers": "encoder.backbone", "ratio": 0.4},
            {"kind": "drop_layers", "layers": "decoder.layers", "keep": {"choice": [2, 1]}},
            {"kind": "retrain", "steps": 3, "batch_size": 16},
            {"kind": "quantize", "layers": "**", "bits": {"choice": [8, 4]}},
        ]
    },
    "search": {"sampler": "random", "seed": 0},
}
TINY_TRIALS = 4


@contextmanager
def surroundings(cache: Path) -> Iterator[None]:
    """A cache of its own, one thread, and a machine without Java, for METEOR's takes seconds."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOCOMP_CACHE", str(cache))
        patch.setattr("autocomp.evaluate.captions.java_available", lambda: False)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(tiny_cache: Path) -> Iterator[None]:
    """The surroundings the tiny study was made in, for a test that goes on with it."""
    with surroundings(tiny_cache):
        yield


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory, tiny_cache: Path) -> Path:
    """The folder of the finished study."""
    from autocomp.space.space import SearchSpace
    from autocomp.study.driver import search

    directory = tmp_path_factory.mktemp("tiny") / "study"
    with surroundings(tiny_cache):
        space = SearchSpace.from_dict(TINY_SPACE)
        study = search(space, trials=TINY_TRIALS, directory=directory, workers=0)
    reasons = [one.reason for one in study.results.values() if one.status != "complete"]
    assert not reasons, reasons
    return directory


@pytest.fixture(scope="module")
def bench(tiny_study: Path) -> Bench:
    """What the trials of the study have in common."""
    from autocomp.bench import open_bench
    from autocomp.space.space import SearchSpace

    return open_bench(SearchSpace.load(tiny_study / "space.yaml"), tiny_study)


@pytest.fixture
def work(bench: Bench) -> Work:
    """Its dense model, for steps to act on."""
    from autocomp.work import Work

    return Work(bench.dense.compressed(), bench)


@pytest.fixture(scope="session")
def shapes_study(tmp_path_factory: pytest.TempPathFactory, tiny_cache: Path) -> Path:
    """The folder of a finished study of a classifier: dense, control, and one policy."""
    from label_files import shapes_space, write_shapes

    from autocomp.space.space import SearchSpace
    from autocomp.study.driver import search

    folder = tmp_path_factory.mktemp("classifier")
    space = SearchSpace.from_dict(shapes_space(write_shapes(folder / "shapes", count=16)))
    with surroundings(tiny_cache):
        study = search(space, trials=3, directory=folder / "study", workers=0)
    reasons = [one.reason for one in study.results.values() if one.status != "complete"]
    assert not reasons, reasons
    return folder / "study"
