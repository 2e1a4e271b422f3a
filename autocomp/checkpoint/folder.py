"""A checkpoint: a folder with a model at its widths, its runtime files, and all they need.

Nothing in it runs code when it is read: safetensors, JSON, YAML and ONNX; the program that lies in
it for those without autocomp is a copy that autocomp never runs. `config.json` names every other
file with its SHA-256, so one that was truncated or edited is found before it is used.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from autocomp.checkpoint.folding import StoredTensors
from autocomp.checkpoint.packing import describe, pack, records, restore, together
from autocomp.checkpoint.programs import program_of
from autocomp.compress.formats import Compressed
from autocomp.decisions import Decision, json_id, validate
from autocomp.errors import CheckpointError
from autocomp.files import write_bytes, write_text
from autocomp.policy import Policy
from autocomp.targets import Artifact, TargetSettings, load_target
from autocomp.tasks.base import Run, Task
from autocomp.tasks.registry import restore_task
from autocomp.tensors import TensorRecords

CONFIG = "config.json"
CALIBRATION_EXAMPLES, CALIBRATION_BATCH = 64, 4
"""More examples move the ranges of activations by less than their own bins; a batch's activations
are all held at once, which for 64 photos would be gigabytes."""
WEIGHTS = "model.safetensors"
POLICY = "policy.yaml"
METRICS = "metrics.json"
CARD = "README.md"
LATE = (METRICS, CARD)
"""Written after `config.json`, for its size is among the metrics."""

# a name without a slash cannot leave its folder
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


class CheckpointConfig(Decision):
    """What `config.json` says.

    `seed` is the study's, `fingerprint` that of the data and the initial model the dense model was
    trained on. `steps` is how many steps of a sequential model its latency is measured
    over, `dense_latency_ms` what those took the dense model in the study. `image_size` is set if
    the model takes images of another size than the dense one, in pixels. `files` maps each file to
    its SHA-256 and `checksum` is that of everything else in this file.
    """

    format: Literal[1] = 1
    task: dict[str, Any]
    target: TargetSettings
    tensors: StoredTensors
    graphs: dict[str, FileName]
    assets: tuple[FileName, ...]
    seed: int = Field(ge=0)
    fingerprint: str
    steps: int = Field(ge=1)
    dense_latency_ms: float = Field(ge=0)
    image_size: int | None = Field(default=None, ge=16)
    files: dict[FileName, str]
    checksum: str = ""


def write_model(
    directory: Path, task: Task, target: TargetSettings, compressed: Compressed, policy: Policy
) -> Artifact:
    """Write the model into `directory`: runtime files, packed weights, assets and policy."""
    compressed.module.eval()
    runtime = load_target(target.kind)
    artifact = runtime.lower(
        task.graphs(compressed.module),
        compressed,
        directory,
        drive=lambda run: _calibrate(task, run),
    )
    assets = tuple(task.write_assets(directory, target.threads))
    packed = together(pack(compressed), describe(compressed))
    write_bytes(directory / WEIGHTS, save(packed))
    write_text(directory / POLICY, policy.to_yaml())
    return replace(artifact, assets=assets)


def _calibrate(task: Task, run: Run) -> None:
    for start in range(0, CALIBRATION_EXAMPLES, CALIBRATION_BATCH):
        stop = min(start + CALIBRATION_BATCH, task.size("train"))
        if start < stop:
            task.predict(run, task.inputs("train", start, stop))


def write_config(
    artifact: Artifact,
    compressed: Compressed,
    task: dict[str, Any],
    target: TargetSettings,
    seed: int,
    fingerprint: str,
    steps: int,
    dense_latency_ms: float,
    image_size: int | None = None,
) -> None:
    """Write `config.json` for what `write_model` wrote, and the program that runs it.

    `task` is the space file's section, whose kind decides on the program. `config.json` has its
    final size from now on; `seal` makes it whole when the metrics and the card are written.
    """
    names = [*artifact.graphs.values(), *artifact.assets, WEIGHTS, POLICY]
    if (program := program_of(task)) is not None:
        name, content = program
        write_bytes(artifact.directory / name, content)
        names.append(name)
    config = CheckpointConfig(
        task=task,
        target=target,
        tensors=describe(compressed, artifact.computed_bits),
        graphs=artifact.graphs,
        assets=artifact.assets,
        seed=seed,
        fingerprint=fingerprint,
        steps=steps,
        dense_latency_ms=dense_latency_ms,
        image_size=image_size,
        files={
            **{name: _sha256(artifact.directory / name) for name in names},
            **dict.fromkeys(LATE, "0" * 64),
        },
    )
    _write_signed(artifact.directory, config)


def seal(directory: Path) -> None:
    """Put the hashes of the metrics and the card into `config.json`; nothing is written after."""
    config = _read_config(directory)
    late = {name: _sha256(directory / name) for name in LATE}
    _write_signed(directory, config.model_copy(update={"files": config.files | late}))


def download_mb(artifact: Artifact) -> float:
    """10^6 bytes of what a user must fetch to rebuild the artefact exactly."""
    names = [*artifact.assets, WEIGHTS, CONFIG]
    return sum((artifact.directory / name).stat().st_size for name in names) / 1e6


class Checkpoint:
    """An opened checkpoint; parts are loaded when they are first used."""

    def __init__(self, directory: Path, config: CheckpointConfig) -> None:
        self.directory = directory
        self.config = config

    @cached_property
    def dense_task(self) -> Task:
        """The task of the dense model this one was made from."""
        return restore_task(self.config.task, self.directory, CheckpointError)

    @cached_property
    def task(self) -> Task:
        size = self.config.image_size
        return self.dense_task if size is None else self.dense_task.resized(size)

    @property
    def artifact(self) -> Artifact:
        return Artifact(self.directory, self.config.graphs, self.config.assets)

    @property
    def policy(self) -> Policy:
        return Policy.load(self.directory / POLICY)

    @property
    def metrics(self) -> dict[str, float]:
        """What the study measured."""
        path = self.directory / METRICS
        metrics = _read_json(path)
        if not all(isinstance(value, int | float) for value in metrics.values()):
            raise CheckpointError(f"{path}: must map names to numbers, but does not")
        return metrics

    @cached_property
    def run(self) -> Run:
        """Runs the graphs in the target's runtime, as deployed."""
        target = self.config.target
        return load_target(target.kind).open(self.artifact, threads=target.threads)

    def compressed(self) -> Compressed:
        """The PyTorch model, rebuilt exactly from the packed weights."""
        try:
            packed = load_file(self.directory / WEIGHTS)
        except (OSError, SafetensorError) as failure:
            raise CheckpointError(f"{self.directory / WEIGHTS}: {failure}") from None
        return restore(self.task.build(), packed, self.config.tensors)

    def predict(self, raw: bytes) -> Any:
        """The prediction for one raw example: the caption of a JPEG file's bytes, say."""
        return self.task.predict(self.run, self.task.read(raw))[0]


def open_checkpoint(directory: Path | str) -> Checkpoint:
    """The checkpoint in a folder; `CheckpointError` if it is incomplete, truncated or edited."""
    directory, config = _find(directory)
    for name in (*config.graphs.values(), *config.assets, WEIGHTS, POLICY, *LATE):
        if name not in config.files:
            raise CheckpointError(f"{directory / CONFIG}: files must name {name}, but does not")
    for name in config.files:
        _check_file(directory, name, config)
    return Checkpoint(directory, config)


def open_packed(directory: Path | str) -> Checkpoint:
    """The checkpoint of which a folder holds at least what `download_mb` counts.

    `CheckpointError` if any of that is missing, truncated or edited; no other file is looked at.
    """
    directory, config = _find(directory)
    for name in (*config.assets, WEIGHTS):
        _check_file(directory, name, config)
    return Checkpoint(directory, config)


def is_whole(path: Path, config: CheckpointConfig) -> bool:
    """Whether a file is there with the bytes that `config` names."""
    return path.is_file() and config.files.get(path.name) == _sha256(path)


def tensor_records(directory: Path) -> TensorRecords:
    """How the tensors of the checkpoint in a folder are stored; no other file is looked at."""
    config = _read_config(directory)
    return records(config.tensors)


def is_checkpoint(directory: Path) -> bool:
    """Whether a folder holds what autocomp wrote, be it truncated: its config.json says so."""
    try:
        _read_config(directory)
    except CheckpointError:
        return False
    return True


def _find(directory: Path | str) -> tuple[Path, CheckpointConfig]:
    directory = Path(directory)
    if not directory.is_dir():
        found = "is a file" if directory.exists() else "there is none"
        raise CheckpointError(f"{directory}: must be a checkpoint folder, but {found}")
    return directory, _read_config(directory)


def _check_file(directory: Path, name: str, config: CheckpointConfig) -> None:
    file = directory / name
    if not file.is_file():
        can = name in config.graphs.values()
        mend = f"; 'autocomp rebuild {directory}' makes it" if can else ""
        raise CheckpointError(f"{file}: must be there, but is missing{mend}")
    if not is_whole(file, config):
        raise CheckpointError(f"{file}: must be as autocomp wrote it, but it was changed")


def _read_config(directory: Path) -> CheckpointConfig:
    path = directory / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{directory}: must hold a {CONFIG}, but has none")
    written = _read_json(path)
    config = validate(CheckpointConfig, written, str(path), CheckpointError)
    # of the file, not of the settings: an older one lacks the fields that came since
    if config.checksum != checksum(written):
        raise CheckpointError(f"{path}: must be as autocomp wrote it, but it was edited")
    return config


def _write_signed(directory: Path, config: CheckpointConfig) -> None:
    """A line a setting: indented, it would be a hundredth of a small model."""
    content = config.model_dump(mode="json")
    signed = content | {"checksum": checksum(content)}
    lines = [
        f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'), allow_nan=False)}"
        for key, value in signed.items()
    ]
    write_text(directory / CONFIG, "{\n" + ",\n".join(lines) + "\n}\n")


def checksum(content: dict[str, Any]) -> str:
    """What `config.json` with this content must hold as its own checksum."""
    told = content["tensors"]
    if isinstance(told.get("formats"), list):  # by order are tensors told apart that lie together
        told = json.dumps(told)
    return json_id(content | {"checksum": "", "tensors": told})


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as failure:
        raise CheckpointError(f"{path}: must be readable, but {failure.strerror}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as failure:
        raise CheckpointError(f"{path}: must be JSON, but {failure}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold an object, but got {type(value).__name__}")
    return value
