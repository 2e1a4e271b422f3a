"""Whoever fetched the packed weights alone gets the very files that were measured."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from tiny_models import tiny_captioner, tiny_task
from torch import nn

from autocomp.apply import apply_
from autocomp.bench import Bench, open_bench
from autocomp.checkpoint import programs
from autocomp.checkpoint.folder import (
    CONFIG,
    WEIGHTS,
    download_mb,
    open_checkpoint,
    seal,
    write_config,
    write_model,
)
from autocomp.checkpoint.packing import describe, pack, together
from autocomp.clock import Clock
from autocomp.compress.formats import Compressed
from autocomp.compress.quantize import quantize_
from autocomp.deploy import caption
from autocomp.errors import CheckpointError
from autocomp.files import write_bytes
from autocomp.models.cnn_transformer import CnnTransformer
from autocomp.policy import Policy, Quantize
from autocomp.ship.rebuild import rebuild
from autocomp.ship.verify import verify
from autocomp.space.space import SearchSpace
from autocomp.targets import TargetSettings
from autocomp.tasks.base import Task
from autocomp.work import Work

pytestmark = pytest.mark.usefixtures("tiny")
PACKED = (WEIGHTS, CONFIG, "tokenizer.json", "preprocessing.json")
GRAPHS = ["encoder.onnx", "decoder.onnx"]

CHANNELS = {"kind": "prune_channels", "layers": "encoder.backbone", "ratio": 0.4}
HEADS = {"kind": "prune_heads", "layers": "decoder", "ratio": 0.5}
WIDTH = {"kind": "prune_width", "layers": "decoder", "ratio": 0.5}
DEPTH = {"kind": "drop_layers", "layers": "decoder.layers", "keep": 1}


def bits(layers: str, width: int, **settings: Any) -> dict[str, Any]:
    return {"kind": "quantize", "layers": layers, "bits": width, **settings}


POLICIES: dict[str, list[dict[str, Any]]] = {
    "fp32": [],
    "8 bits": [bits("decoder", 8)],
    "4 bits, small groups": [bits("decoder", 4, group_size=16)],
    "3 bits, affine, compensated": [
        bits("**", 3, scheme="affine", rounding="compensated", granularity="channel")
    ],
    "weights alone": [bits("**", 5, activation_bits=32), bits("decoder", 2, activation_bits=32)],
    "one scale a tensor": [bits("**", 6, granularity="tensor")],
    "trained through": [bits("**", 4, qat=True), {"kind": "retrain", "steps": 1}],
    "steps against the model's order": [bits("decoder", 4), bits("encoder.projection", 4)],
    "fixed point": [
        {"kind": "fixed_point", "layers": "**", "bits": 8, "activation_bits": 8, "method": "log"}
    ],
    "fixed point beside integers, against the model's order": [
        bits("**", 8),
        {"kind": "fixed_point", "layers": "decoder.embedding", "bits": 6, "activation_bits": 8},
        {"kind": "fixed_point", "layers": "decoder.layers.0", "bits": 4, "activation_bits": 8},
        {"kind": "fixed_point", "layers": "encoder.projection", "bits": 16, "activation_bits": 8},
    ],
    "int8 convolutions": [bits("encoder.backbone", 8, ranges="minmax")],
    "16 bits": [bits("**", 16)],
    "pruned": [CHANNELS, HEADS, WIDTH],
    "smaller photos": [{"kind": "resize", "image_size": 16}, bits("**", 8)],
    "a dropped layer": [DEPTH],
    "all of it": [CHANNELS, HEADS, DEPTH, WIDTH, bits("**", 8), bits("decoder", 4)],
}


def hashes(directory: Path) -> dict[str, str]:
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in GRAPHS}


def write(
    directory: Path, task: Task, compressed: Compressed, image_size: int | None = None
) -> Path:
    """A checkpoint, but for what is written when it is measured."""
    artifact = write_model(directory, task, TargetSettings(), compressed, Policy())
    section = task.settings.model_dump(mode="json")  # type: ignore[attr-defined]
    write_config(artifact, compressed, section, TargetSettings(), 0, "", 1, 1.0, image_size)
    counted = sum((directory / name).stat().st_size for name in PACKED) / 1e6
    assert download_mb(artifact) == counted
    return directory


def download(checkpoint: Path, into: Path) -> Path:
    into.mkdir()
    for name in PACKED:
        shutil.copy(checkpoint / name, into)
    return into


@pytest.fixture(scope="module")
def bench(tiny_study: Path) -> Bench:
    return open_bench(SearchSpace.load(tiny_study / "space.yaml"), tiny_study)


@pytest.fixture
def checkpoint(tiny_study: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_study / "trials" / "00003" / "checkpoint", tmp_path / "checkpoint")


@pytest.mark.parametrize("steps", POLICIES.values(), ids=POLICIES)
def test_every_format_gives_the_same_bytes(
    steps: list[dict[str, Any]], bench: Bench, tmp_path: Path
) -> None:
    work = Work(bench.dense.compressed(), bench)
    apply_(work, Policy.model_validate({"steps": steps}), Clock())
    shipped = write(tmp_path / "shipped", work.task, work.compressed, work.image_size)
    fetched = download(shipped, tmp_path / "fetched")
    assert rebuild(fetched) == [*GRAPHS, "caption.py"]
    assert hashes(fetched) == hashes(shipped)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_so_does_a_head_of_its_own(tied: bool, tmp_path: Path) -> None:
    task = tiny_task({"tied_head": tied, "encoder_layers": 1})
    compressed = Compressed(tiny_captioner(task))
    quantize_(compressed, Quantize(layers=("decoder",), bits=4))
    assert ("decoder.head.weight" in compressed.quantized) is not tied
    shipped = write(tmp_path / "shipped", task, compressed)
    fetched = download(shipped, tmp_path / "fetched")
    rebuild(fetched)
    assert hashes(fetched) == hashes(shipped)


def test_a_process_of_its_own_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    fetched = download(checkpoint, tmp_path / "fetched")
    command = [sys.executable, "-m", "autocomp", "rebuild", str(fetched), "--json"]
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert json.loads(done.stdout)["rebuilt"] == [*GRAPHS, "caption.py"], done.stderr
    assert hashes(fetched) == hashes(checkpoint)


def test_only_what_is_lacking_is_written(checkpoint: Path) -> None:
    assert rebuild(checkpoint) == []
    expected = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    (checkpoint / "decoder.onnx").write_bytes(expected["decoder.onnx"][:-1])
    (checkpoint / "caption.py").unlink()
    kept = (checkpoint / "encoder.onnx").stat().st_mtime_ns
    assert rebuild(checkpoint) == ["decoder.onnx", "caption.py"]
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == expected
    assert (checkpoint / "encoder.onnx").stat().st_mtime_ns == kept
    open_checkpoint(checkpoint)


def test_another_autocomps_program_is_not_put_in_its_place(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    newer = tmp_path / "caption.py"
    newer.write_text(Path(caption.__file__).read_text() + "# newer\n")
    monkeypatch.setitem(programs.PROGRAMS, "captioning", newer)
    (checkpoint / "caption.py").unlink()
    with caplog.at_level(logging.WARNING):
        assert rebuild(checkpoint) == []
    assert "caption.py: not written, for the checkpoint is of another autocomp" in caplog.text


def test_other_bytes_are_refused_and_nothing_is_written(bench: Bench, tmp_path: Path) -> None:
    """As another version of ONNX would write them: the hash is that of a file made elsewhere."""
    compressed = bench.dense.compressed()
    artifact = write_model(tmp_path, bench.task, TargetSettings(), compressed, Policy())
    with (tmp_path / "decoder.onnx").open("ab") as file:
        file.write(b"elsewhere")
    section = bench.dense.config.task
    write_config(artifact, compressed, section, TargetSettings(), 0, "", 1, 1.0)
    checkpoint = download(tmp_path, tmp_path / "fetched")
    before = sorted(path.name for path in checkpoint.iterdir())
    with pytest.raises(CheckpointError, match=r"decoder\.onnx: must come out as config\.json has"):
        rebuild(checkpoint)
    assert sorted(path.name for path in checkpoint.iterdir()) == before


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_what_was_fetched_must_be_whole(checkpoint: Path, tmp_path: Path, name: str) -> None:
    fetched = download(checkpoint, tmp_path / "fetched")
    (fetched / name).write_bytes((fetched / name).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{name}: must be as autocomp wrote it"):
        rebuild(fetched)
    (fetched / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: must be there, but is missing"):
        rebuild(fetched)


def test_tensors_that_fit_together_to_no_model_are_refused(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Each is as long as the configuration says, and every checksum is right: forged, say."""
    opened = open_checkpoint(checkpoint)
    compressed = opened.compressed()
    projection = compressed.module.get_submodule("encoder.projection")
    projection.weight = nn.Parameter(torch.zeros(32, 7))
    del compressed.quantized["encoder.projection.weight"]
    write_bytes(checkpoint / WEIGHTS, save(together(pack(compressed), describe(compressed))))
    section = opened.config.task
    write_config(opened.artifact, compressed, section, TargetSettings(), 0, "", 1, 1.0)
    seal(checkpoint)
    rule = "tensors must have shapes that fit together, but mat1 and mat2 shapes"
    with pytest.raises(CheckpointError, match=rule):
        rebuild(download(checkpoint, tmp_path / "fetched"))
    with pytest.raises(CheckpointError, match=rule):
        verify(checkpoint)


def test_what_fails_of_the_dense_model_too_is_not_blamed_on_the_file(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(CnnTransformer, "step", broken)
    (checkpoint / "decoder.onnx").unlink()
    with pytest.raises(RuntimeError, match="a bug"):
        rebuild(checkpoint)


def test_a_checkpoint_without_its_graphs_says_what_makes_them(checkpoint: Path) -> None:
    (checkpoint / "encoder.onnx").unlink()
    with pytest.raises(CheckpointError, match=f"'autocomp rebuild {checkpoint}' makes it"):
        open_checkpoint(checkpoint)
