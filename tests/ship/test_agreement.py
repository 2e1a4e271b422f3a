"""The model in memory, the one reloaded from packed weights, and the artefact compute the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label_files import shapes_section, write_shapes
from tiny_models import RECURRENT, SECTION, tiny_captioner
from torch import nn

from autocomp.apply import apply_
from autocomp.bench import Bench
from autocomp.checkpoint.folder import Checkpoint, open_packed, write_config, write_model
from autocomp.clock import Clock
from autocomp.compress.formats import Compressed
from autocomp.policy import Policy
from autocomp.targets import TargetSettings
from autocomp.tasks.base import Task, torch_run
from autocomp.tasks.registry import build_task
from autocomp.trust import trusting
from autocomp.work import Work

pytestmark = pytest.mark.usefixtures("tiny")

EXACT, HALVED, ROUNDED, POWERS = 1e-5, 1e-3, 0.03, 0.05
"""The largest error of an output, over the norm of what it should be: where both compute with the
same numbers; where BatchNorm is folded into weights that are then halved; where the artefact alone
rounds activations to 8 bits; where it does so to 8 bits whose step is a power of two."""

quantize = partial(dict, kind="quantize", layers="**")
fixed_point = partial(dict, kind="fixed_point", layers="**", bits=8)
PART = ["encoder", "layer1", "0"]
"""Of a captioner, of the classifier, and of a task of one's own."""
WEIGHTS_ALONE = {"activation_bits": 32}
FORMATS: dict[str, tuple[list[dict[str, Any]], float]] = {
    "fp32": ([], EXACT),
    "fp16": ([quantize(bits=16)], HALVED),
    **{f"{bits} bits": ([quantize(bits=bits)], ROUNDED) for bits in (8, 6, 5, 4, 3, 2)},
    **{
        f"{bits} bits, weights alone": ([quantize(bits=bits, **WEIGHTS_ALONE)], EXACT)
        for bits in (8, 4, 3)
    },
    "compensated, affine, a scale a channel": (
        [quantize(bits=4, rounding="compensated", scheme="affine", granularity="channel")],
        ROUNDED,
    ),
    # what is left of so small a backbone is too thin to round its activations well
    "pruned, retrained, 4 bits, weights alone": (
        [
            {"kind": "prune_channels", "layers": "**", "ratio": 0.4, "round_to": 2},
            {"kind": "retrain", "steps": 1},
            quantize(bits=4, **WEIGHTS_ALONE),
        ],
        EXACT,
    ),
    "trained through": ([quantize(bits=4, qat=True), {"kind": "retrain", "steps": 1}], ROUNDED),
    "compensated, 8 bits": ([quantize(bits=8, rounding="compensated")], ROUNDED),
    "a scale a tensor": ([quantize(bits=8, granularity="tensor")], ROUNDED),
    "fewer bits for a part": ([quantize(bits=8), quantize(bits=4, exclude=PART)], ROUNDED),
    "fixed point": ([fixed_point()], EXACT),
    "fixed point, activations too": ([fixed_point(activation_bits=8)], POWERS),
    "fixed point, results of 16 bits": ([fixed_point(bits=16, activation_bits=16)], HALVED),
    "fixed point for a part": (
        [quantize(bits=4, **WEIGHTS_ALONE), fixed_point(layers=PART)],
        EXACT,
    ),
    "fixed point, a part then in 4 bits": (
        [fixed_point(batch_norm_bits=8), quantize(layers=PART, bits=4)],
        ROUNDED,
    ),
}


KINDS = ("transformer", "classifier", "python", *RECURRENT)
Benches = Callable[[str], Bench]


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = write_shapes(tmp_path_factory.mktemp("shapes"), count=8)
    recurrent = {name: SECTION | {"model": model} for name, model in RECURRENT.items()}
    return {
        "transformer": SECTION,
        "classifier": shapes_section(root),
        "python": {"kind": "python", "factory": "bars:Bars", "dense": {"steps": 1}},
        **recurrent,
    }


@pytest.fixture(scope="module")
def benches(sections: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Benches:
    """A bench with a dense model for each kind, made when it is first asked for."""

    @cache
    def bench(kind: str) -> Bench:
        task = build_task(sections[kind])
        dense = Compressed(tiny_captioner(task))
        folder = tmp_path_factory.mktemp("dense") / "model"
        return Bench(task, write(folder, task, sections[kind], dense), (), 0)

    return bench


def write(folder: Path, task: Task, section: dict[str, Any], compressed: Compressed) -> Checkpoint:
    folder.mkdir()
    artifact = write_model(folder, task, TargetSettings(), compressed, Policy())
    write_config(artifact, compressed, section, TargetSettings(), 0, "", 1, 1.0)
    return open_packed(folder)


def errors(checkpoint: Checkpoint, model: nn.Module, task: Task) -> list[float]:
    """Of each output of each call of a graph: how far the artefact is from `model`."""
    in_torch = torch_run(task.graphs(model))
    found = []

    def both(name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        outputs, wanted = checkpoint.run(name, **inputs), in_torch(name, **inputs)
        for key, value in wanted.items():
            if size := np.linalg.norm(value):  # of a cache without a step yet it is 0
                found.append(float(np.linalg.norm(outputs[key] - value) / size))
        return outputs

    task.predict(both, task.inputs("dev", 0, 4))
    return found


@pytest.mark.parametrize(("steps", "tolerance"), FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@trusting()  # a task of one's own is code
def test_what_ships_computes_what_was_compressed(
    kind: str, steps: list[dict[str, Any]], tolerance: float, benches: Benches, tmp_path: Path
) -> None:
    bench = benches(kind)
    work = Work(bench.dense.compressed(), bench)
    apply_(work, Policy.model_validate({"steps": steps}), Clock())
    section = bench.dense.config.task
    checkpoint = write(tmp_path / "checkpoint", bench.task, section, work.compressed)
    reloaded = checkpoint.compressed().module
    for name, tensor in work.module.state_dict().items():
        is_counter = name.endswith("num_batches_tracked")
        assert is_counter or torch.equal(tensor, reloaded.state_dict()[name]), name
    assert max(errors(checkpoint, reloaded, bench.task)) <= tolerance
