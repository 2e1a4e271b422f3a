"""What the trials of a study have in common, and the dense model they all start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from autocomp.checkpoint.card import Card, Example, write_card
from autocomp.checkpoint.folder import (
    METRICS,
    Checkpoint,
    open_checkpoint,
    seal,
    write_config,
    write_model,
)
from autocomp.compress.channels import channel_layers
from autocomp.compress.depth import fewest, layer_containers
from autocomp.compress.fixed_point import fixable_layers
from autocomp.compress.formats import Compressed
from autocomp.compress.quantize import quantizable_layers
from autocomp.decisions import validate
from autocomp.dense import dense_model
from autocomp.errors import SpaceError, StudyError
from autocomp.files import write_folder, write_json
from autocomp.measure import cost, quality
from autocomp.models.transformer import Attention
from autocomp.models.units import HiddenUnits
from autocomp.policy import Policy
from autocomp.space.objectives import Objective
from autocomp.space.space import SearchSpace
from autocomp.targets import TargetSettings, load_target
from autocomp.tasks.base import Run, Task
from autocomp.tasks.registry import build_task, fingerprint, task_settings
from autocomp.timing import (
    TIMED_EXAMPLES,
    Inference,
    is_time,
    own_latency_ms,
    sequential_graphs,
    time_dense,
)

DENSE = "dense"
SHOWN = 5
"""How many of the first images of the dev split a model card shows predictions of."""
Progress = Callable[[int, int, float], None]


@dataclass
class Bench:
    """The task, the dense checkpoint, and what counts."""

    task: Task
    dense: Checkpoint
    objectives: tuple[Objective, ...]
    seed: int

    @property
    def target(self) -> TargetSettings:
        return self.dense.config.target

    @property
    def steps(self) -> int:
        return self.dense.config.steps

    @cached_property
    def raw_inputs(self) -> list[bytes]:
        return self.task.raw_inputs("dev", TIMED_EXAMPLES)

    @property
    def times(self) -> dict[str, float]:
        """How long the dense model takes: timed when it was made, one figure for the study."""
        return {name: value for name, value in self.dense.metrics.items() if is_time(name)}

    def inference(self, task: Task, run: Run, steps: int | None) -> Inference:
        """What is timed of a model that `run` runs."""
        return Inference(task, run, self.raw_inputs, self.target, steps)

    @cached_property
    def sequential(self) -> frozenset[str]:
        return sequential_graphs(self.task)

    @cached_property
    def shown(self) -> list[Any]:
        """What the dense model says of the examples that model cards show."""
        return self.task.predict(self.dense.run, self.task.inputs("dev", 0, SHOWN))

    @cached_property
    def teacher(self) -> nn.Module:
        return self.dense.compressed().module


def open_bench(space: SearchSpace, directory: Path) -> Bench:
    """The bench of a study whose dense model `prepare_dense` has put into `directory`."""
    dense = open_checkpoint(directory / DENSE)
    return Bench(build_task(space.task), dense, space.objectives, space.search.seed)


def check_given(space: SearchSpace) -> None:
    """Read what is looked at only once a dense model is trained: the dev split, and that model.

    `UserError` for examples or a dense checkpoint that cannot be used.
    """
    task, settings = build_task(space.task), task_settings(space.task).dense
    task.size("dev")
    if settings.checkpoint is not None:
        dense_model(task, settings, fingerprint="", seed=space.search.seed)


def find_dense(space: SearchSpace, directory: Path) -> Checkpoint | None:
    """The dense model that is in `directory`/dense, None if there is none yet.

    `StudyError` if it was made for another task, target or seed, or of other data: with one caption
    changed, a word's number may mean another word.
    """
    if not (directory / DENSE / METRICS).exists():
        return None
    dense = open_checkpoint(directory / DENSE)
    wanted = {
        "task": task_settings(space.task).model_dump(mode="json"),
        "target": _target(space),
        "seed": space.search.seed,
    }
    differing = [name for name, value in wanted.items() if getattr(dense.config, name) != value]
    if differing:
        raise StudyError(
            f"{dense.directory}: must be the dense model of this task, target and seed, but was "
            f"made with another {' and another '.join(differing)}; choose another folder"
        )
    if dense.config.fingerprint != fingerprint(build_task(space.task), space.task):
        raise StudyError(
            f"{dense.directory}: must be the dense model of these data, but was trained when the "
            "training data, the initial weights or the source of your own task were others; "
            "choose another folder"
        )
    return dense


def prepare_dense(
    space: SearchSpace, directory: Path, on_step: Progress | None = None
) -> Checkpoint:
    """Train the dense model unless it is cached, and leave its checkpoint in `directory`/dense.

    Whoever calls it holds the lock of the study in `directory`. Raises as `find_dense` does.
    """
    found = find_dense(space, directory)
    if found is not None:
        return found
    settings, target, seed = task_settings(space.task), _target(space), space.search.seed
    task = build_task(space.task)
    module = dense_model(task, settings.dense, fingerprint(task, space.task), seed, on_step)
    section = settings.model_dump(mode="json")

    def fill(folder: Path) -> None:
        metrics, said = _measure_dense(folder, task, target, Compressed(module), section, seed)
        write_json(folder / METRICS, metrics)
        write_card(folder, _dense_card(space, task, metrics, said))
        seal(folder)

    write_folder(directory / DENSE, fill)
    return open_checkpoint(directory / DENSE)


def examples(task: Task, said: Sequence[Any], dense: Sequence[Any]) -> tuple[Example, ...]:
    """What two models say of the first images of the dev split, and what a person did."""
    return tuple(
        Example(name, task.said(said[index]), task.said(dense[index]), task.reference("dev", index))
        for index, name in enumerate(task.names("dev")[:SHOWN])
    )


def _dense_card(
    space: SearchSpace, task: Task, metrics: dict[str, float], said: Sequence[Any]
) -> Card:
    return Card(
        task=task_settings(space.task).model_dump(mode="json"),
        policy=Policy(),
        target=_target(space),
        objectives=tuple(one.metric for one in space.objectives),
        metrics=metrics,
        dense=metrics,
        dev_size=task.size("dev"),
        examples=examples(task, said, said),
        skipped=tuple(task.left_out()),
    )


def _target(space: SearchSpace) -> TargetSettings:
    return validate(TargetSettings, dict(space.target), "target", SpaceError)


def _measure_dense(
    folder: Path,
    task: Task,
    target: TargetSettings,
    dense: Compressed,
    section: dict[str, Any],
    seed: int,
) -> tuple[dict[str, float], list[Any]]:
    """The dense model's metrics, and what it predicts of the dev split."""
    artifact = write_model(folder, task, target, dense, Policy())
    run = load_target(target.kind).open(artifact, threads=target.threads)
    metrics, predictions = quality(task, run, "dev")
    steps = max(1, round(metrics.get("mean_tokens", 1.0)))
    raw = task.raw_inputs("dev", TIMED_EXAMPLES)
    timed, latency_ms = time_dense(task, run, raw, target, steps)
    made = fingerprint(task, section)
    write_config(artifact, dense, section, target, seed, made, steps, latency_ms)
    own, beside = (Inference(task, run, raw, target, count) for count in (None, steps))
    return {
        **metrics,
        **cost(task, dense, artifact, target, steps),
        **timed.metrics(latency_ms, sequential_graphs(task), steps),
        "latency_own_ms": own_latency_ms(own, beside, latency_ms),
    }, predictions


def compressible_layers(task: Task) -> dict[str, list[str]]:
    """For each kind of step, the names in the task's dense model that it can act on."""
    model = task.build().eval()
    graph, inputs = task.channel_graph(model)
    others = {kind: layers(model) for kind, layers in LAYERS.items()}
    return {"prune_channels": channel_layers(graph, inputs), **others}


def container_depths(task: Task) -> dict[str, tuple[int, int]]:
    """For each container of layers of the task's dense model, the fewest and most it may keep."""
    containers = layer_containers(task.build())
    return {name: (fewest(layers), len(layers)) for name, layers in containers.items()}


def _names(model: nn.Module, kind: type[nn.Module]) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, kind)]


LAYERS: dict[str, Callable[[nn.Module], list[str]]] = {
    "prune_heads": lambda model: _names(model, Attention),
    "prune_width": lambda model: _names(model, HiddenUnits),
    "drop_layers": lambda model: list(layer_containers(model)),
    "gamma_l1": lambda model: _names(model, nn.BatchNorm2d),
    "quantize": lambda model: list(quantizable_layers(model)),
    "fixed_point": fixable_layers,
    "retrain": lambda model: [name for name, _ in model.named_parameters()],
}
"""For each kind of step, the names in a model that it can act on (channels need a trace too)."""
