"""What every task must do, as checks to run on one of your own.

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_task(check):
        check_task({"kind": "python", "factory": "mine:task", "dense": {"steps": 1}}, check)

A check raises `AssertionError` with what should hold. All of them pass for the tasks that come with
autocomp. They build the task with its data and a random model, so give them little of either.
"""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autocomp.checkpoint.folder import open_packed, write_config, write_model
from autocomp.compress.channels import channel_layers, prune_channels_
from autocomp.compress.formats import Compressed
from autocomp.compress.quantize import quantize_
from autocomp.data.split import SPLITS
from autocomp.errors import UserError, unknown
from autocomp.measure import COSTS
from autocomp.policy import Policy, PruneChannels
from autocomp.rounding import Quantize
from autocomp.targets import TargetSettings, load_target
from autocomp.tasks.base import Batch, Graph, Run, Task, torch_run
from autocomp.tasks.registry import build_task
from autocomp.timing import part_metrics
from autocomp.trust import trusting

Section = Mapping[str, Any]
EXAMPLES = 4
SHARED = 256
"""How many examples of each split are looked for in the others."""
TOLERANCE = 1e-3
"""Of the largest output, between PyTorch and the runtime."""
ROUNDED_TOLERANCE = 0.1
"""The same where the runtime rounds activations to 8 bits, as PyTorch does not; .013 is usual."""
SMALLEST_SIDE = 16
"""In pixels: no smaller images are tried."""
STEPS, LR = 8, 1e-3


def check_task(section: Section, check: str) -> None:
    """Run one of `CHECKS` on the task that the `task` section of a space file describes.

    Your own code is trusted: you run the check. `UserError` for a check there is none of.
    """
    if check not in CHECKS:
        raise UserError(unknown("check", check, list(CHECKS)))
    with trusting():
        CHECKS[check](build_task(section), section)


def builds_the_same_model(task: Task, section: Section) -> None:
    """`build` gives the same weights on every call and leaves other random numbers alone."""
    torch.manual_seed(5)
    first, after = task.build(), torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after), "build must leave PyTorch's generator as it was"
    _assert_same(first, task.build(), "build must give the same weights every time")
    again = build_task(section).fingerprint()
    assert task.fingerprint() == again, "fingerprint must be the same for the same task"


def splits_are_whole_and_apart(task: Task, section: Section) -> None:
    """Every split has examples with names of their own, and none of another split's."""
    seen: dict[bytes, str] = {}
    for split in SPLITS:
        names = task.names(split)
        assert len(names) == task.size(split) > 0, f"{split} must have a name for each example"
        assert len(set(names)) == len(names), f"{split} must name each example differently"
        inputs = task.inputs(split, 0, min(SHARED, len(names)))
        assert len(inputs) == min(SHARED, len(names)), f"{split} must have inputs for its examples"
        for name, one in zip(names, inputs, strict=False):
            other = seen.setdefault(one.tobytes(), split)
            assert other == split, f"{name} of {split} must not be in {other} as well"


def raw_examples_are_the_inputs(task: Task, section: Section) -> None:
    """What reaches a deployed model is read just as the splits hold it."""
    for split in SPLITS:
        raw = task.raw_inputs(split, EXAMPLES)
        assert len(raw) == min(EXAMPLES, task.size(split)), f"{split} must give what it is asked"
        for index, one in enumerate(raw):
            same = np.array_equal(task.read(one), task.inputs(split, index, index + 1))
            assert same, f"example {index} of {split} must be read as inputs has it"
        assert isinstance(task.reference(split, 0), str), "a reference must be words"


def batches_repeat_with_the_seed(task: Task, section: Section) -> None:
    """The same seed gives the same batches, to two models alike; another seed gives others."""
    model, other = task.build(), task.build()
    first, second = (_batches(task, [model], seed=0) for _ in range(2))
    for one, again in zip(first, second, strict=True):
        assert _equal(one[0], again[0]), "the same seed must give the same batches"
    different = _batches(task, [model], seed=1)
    assert not _equal(first[0][0], different[0][0]), "another seed must give other batches"
    for mine, theirs in _batches(task, [model, other], seed=0):
        assert len(_logits(task, model, mine)) == len(_logits(task, other, theirs)), (
            "two models must get the same examples"
        )


def training_lowers_the_loss(task: Task, section: Section) -> None:
    """The loss is a finite scalar, and gradients make it smaller."""
    model = task.build().eval()
    ((batch,),) = _batches(task, [model], seed=0, count=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    losses = []
    for _ in range(STEPS):
        outputs = task.forward(model, batch)
        assert outputs.loss.shape == (), "the loss must be a scalar"
        assert outputs.logits.dim() == 2, "logits must have a row for each target"
        optimizer.zero_grad()
        outputs.loss.backward()
        optimizer.step()
        losses.append(outputs.loss.item())
    assert all(map(math.isfinite, losses)), "the loss must be finite"
    assert losses[-1] < losses[0], f"{STEPS} steps on one batch must lower its loss"


def features_lie_on_a_square(task: Task, section: Section) -> None:
    """`features` are (B, S, d), S places of a square grid."""
    model = task.build().eval()
    ((batch,),) = _batches(task, [model], seed=0, count=1)
    shape = task.features(model, batch).shape
    assert len(shape) == 3, "features must be (B, S, d)"
    assert math.isqrt(shape[1]) ** 2 == shape[1], "S must be places of a square grid"


def the_runtime_computes_what_pytorch_does(task: Task, section: Section) -> None:
    """Every output of every graph is the same in both, and batches change no prediction."""
    model = task.build().eval()
    graphs = task.graphs(model)
    target = load_target("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        in_runtime = target.open(target.lower(graphs, Compressed(model), Path(folder)))
    both = _both(in_runtime, graphs, TOLERANCE)
    count = min(EXAMPLES, task.size("dev"))
    together = task.predict(both, task.inputs("dev", 0, count))
    alone = [task.predict(both, task.inputs("dev", i, i + 1))[0] for i in range(count)]
    assert together == alone, "a prediction must not depend on what else is in its batch"


def smaller_images_fit_the_model(task: Task, section: Section) -> None:
    """A task of images can be had with smaller ones, and a model that was built then takes them."""
    whole, side = task.image_size, max(task.image_size // 2, SMALLEST_SIDE)
    if whole <= side:  # its examples are no images, or are small as they are
        return
    smaller, model, teacher = task.resized(side), task.build(), task.build()
    assert (smaller.image_size, task.image_size) == (side, whole), "resized must make another task"
    smaller.resize_(model)
    shapes, built = (
        {name: tensor.shape for name, tensor in one.state_dict().items()}
        for one in (model, smaller.build())
    )
    assert shapes == built, "resize_ must make of a model what build gives"
    ((mine, theirs),) = _batches(smaller, [model, teacher], seed=0, count=1)
    same = len(_logits(smaller, model, mine)) == len(_logits(smaller, teacher, theirs))
    assert same, "a model and its teacher must get the same examples, each in its own size"
    count = min(EXAMPLES, task.size("dev"))
    run = torch_run(smaller.graphs(model.eval()))
    found = smaller.predict(run, smaller.inputs("dev", 0, count))
    assert len(found) == count, "there must be a prediction for each smaller example"


def predictions_are_kept_and_scored(task: Task, section: Section) -> None:
    """Predictions survive JSON; metrics are finite, and those of examples average to them."""
    run = torch_run(task.graphs(task.build().eval()))
    count = min(2 * EXAMPLES, task.size("dev"))
    predictions = task.predict(run, task.inputs("dev", 0, count))
    assert len(predictions) == count, "there must be a prediction for each example"
    assert json.loads(json.dumps(predictions)) == predictions, "predictions must be as JSON has it"
    assert all(isinstance(task.said(one), str) for one in predictions), "said must give words"
    metrics = task.metrics(predictions, "dev")
    assert set(metrics) == set(task.metric_names()), "metric_names must be those of metrics"
    assert all(map(math.isfinite, metrics.values())), "metrics must be finite"
    costs = {*COSTS, *part_metrics(task)}
    assert costs.isdisjoint(metrics), "metrics must not be called as what is measured of any task"
    for name, each in task.per_example(predictions, "dev").items():
        assert each.shape == (count,), f"{name} must have a value for each example"
        assert math.isclose(each.mean(), metrics[name], abs_tol=1e-9), f"{name} must be their mean"


def a_checkpoint_is_the_model(task: Task, section: Section) -> None:
    """Pruned and in 8 bits, packed and reopened without data it has the same weights and files.

    What its files compute is what PyTorch does with the reloaded weights, but for what rounding
    activations does.
    """
    compressed = _compressed(task)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(task, section, compressed, folder)
        opened = open_packed(folder)
        reloaded = opened.compressed()
        _assert_same(reloaded.module, compressed.module, "packed weights must be the model's")
        opened.task.check_assets(folder)
        again = Path(name) / "again"
        again.mkdir()
        _write(opened.task, section, reloaded, again)
        for graph in opened.config.graphs.values():
            same = (again / graph).read_bytes() == (folder / graph).read_bytes()
            assert same, f"{graph} must come out of the packed weights as it went in"
        inputs = task.inputs("dev", 0, min(EXAMPLES, task.size("dev")))
        graphs = opened.task.graphs(reloaded.module)
        said = opened.task.predict(_both(opened.run, graphs, ROUNDED_TOLERANCE), inputs)
        assert said == task.predict(opened.run, inputs), "a restored task must predict the same"


def _compressed(task: Task) -> Compressed:
    """A dense model without half of its channels, where it has any, compensated in 8 bits."""
    model = task.build().eval()
    graph, inputs = task.channel_graph(model)
    if channel_layers(graph, inputs):
        prune_channels_(graph, PruneChannels(layers="**", ratio=0.5, round_to=2), inputs)
    compressed = Compressed(model)
    ((batch,),) = _batches(task, [model], seed=0, count=1)
    step = Quantize(layers="**", bits=8, rounding="compensated")
    quantize_(compressed, step, [lambda: task.forward(model.eval(), batch)])
    return compressed


def _both(in_runtime: Run, graphs: Mapping[str, Graph], tolerance: float) -> Run:
    """Runs graphs in the runtime and in PyTorch, and compares all that they give."""
    in_torch = torch_run(graphs)

    def run(name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        found, wanted = in_runtime(name, **inputs), in_torch(name, **inputs)
        assert list(found) == list(wanted) == list(graphs[name].outputs), "outputs must be named"
        for key, value in wanted.items():
            near = np.abs(found[key] - value).max(initial=0) <= tolerance * _largest(value)
            assert near, f"{name}: {key} must be the same in the runtime"
        return found

    return run


def _write(task: Task, section: Section, compressed: Compressed, folder: Path) -> None:
    target = TargetSettings()
    artifact = write_model(folder, task, target, compressed, Policy())
    write_config(artifact, compressed, dict(section), target, 0, "", 1, 1.0)


def _batches(
    task: Task, models: list[nn.Module], seed: int, count: int = 2
) -> list[tuple[Batch, ...]]:
    names = [name for name, _ in models[0].named_parameters()]
    size = min(2 * EXAMPLES, task.size("train"))
    return list(itertools.islice(task.training_batches(models, size, names, seed), count))


def _logits(task: Task, model: nn.Module, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return task.forward(model.eval(), batch).logits


def _equal(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def _assert_same(one: nn.Module, other: nn.Module, rule: str) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys(), rule
    for name, tensor in first.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, second[name]), f"{rule}: {name} differs"


def _largest(values: np.ndarray) -> float:
    return max(1.0, float(np.abs(values).max(initial=0)))


CHECKS: dict[str, Callable[[Task, Section], None]] = {
    check.__name__: check
    for check in (
        builds_the_same_model,
        splits_are_whole_and_apart,
        raw_examples_are_the_inputs,
        batches_repeat_with_the_seed,
        training_lowers_the_loss,
        features_lie_on_a_square,
        the_runtime_computes_what_pytorch_does,
        smaller_images_fit_the_model,
        predictions_are_kept_and_scored,
        a_checkpoint_is_the_model,
    )
}
