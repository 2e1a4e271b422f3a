"""The training loop: what it changes, what it leaves alone, and when it stops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from bars import Bars
from tiny_models import changed, tiny_captioner, tiny_task, weights
from torch import nn

from autocomp.compress.formats import Compressed
from autocomp.compress.training import fake_quantized
from autocomp.errors import PolicyError, TrialStopped, UserError
from autocomp.models.cnn_transformer import CnnTransformer
from autocomp.policy import Quantize, Retrain
from autocomp.retrain.loop import learning_rate_factor, retrain_, trainable_names
from autocomp.tasks.captioning import Captioning

pytestmark = pytest.mark.usefixtures("tiny")
BACKBONE = "encoder.backbone"


@pytest.fixture(scope="module")
def task() -> Captioning:
    return tiny_task()


@pytest.fixture
def model(task: Captioning, tiny: None) -> CnnTransformer:
    return tiny_captioner(task)


def step(**changes: Any) -> Retrain:
    return Retrain(**{"steps": 3, "lr": 3e-3, "batch_size": 16, "precision": "fp32", **changes})


def logits(task: Captioning, model: nn.Module) -> torch.Tensor:
    ((batch,),) = itertools.islice(
        task.training_batches([model], 16, [n for n, _ in model.named_parameters()], seed=9), 1
    )
    with torch.no_grad():
        return task.forward(model.eval(), batch).logits


def test_the_loss_falls(task: Captioning, model: CnnTransformer) -> None:
    losses: list[float] = []
    retrain_(model, step(steps=25), task, on_step=lambda done, total, loss: losses.append(loss))
    assert len(losses) == 25
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_progress_counts_to_the_last_step(task: Captioning, model: CnnTransformer) -> None:
    seen: list[tuple[int, int]] = []
    retrain_(model, step(), task, on_step=lambda done, total, loss: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_no_steps_are_the_identity(task: Captioning, model: CnnTransformer) -> None:
    before = weights(model)
    retrain_(model, step(steps=0), task)
    assert changed(before, model) == set()


def test_the_same_seed_gives_the_same_weights(task: Captioning) -> None:
    results = []
    for seed in (0, 0, 1):
        model = tiny_captioner(task)
        torch.manual_seed(len(results))  # what came before does not matter
        retrain_(model, step(), task, seed=seed)
        results.append(weights(model))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert not torch.equal(results[0]["decoder.head.weight"], results[2]["decoder.head.weight"])


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"exclude": BACKBONE}, ("encoder.projection", "encoder.norm", "decoder")),
        ({"train": "decoder"}, ("decoder",)),
        ({"train": f"{BACKBONE}.layers.1"}, (f"{BACKBONE}.layers.1",)),
        ({}, (BACKBONE, "encoder", "decoder")),
    ],
    ids=["frozen backbone", "decoder alone", "one block", "everything"],
)
def test_what_is_frozen_stays_bit_for_bit(
    changes: dict[str, Any], moved: tuple[str, ...], task: Captioning, model: CnnTransformer
) -> None:
    before = weights(model)
    retrain_(model, step(**changes), task)
    names = changed(before, model)
    assert names
    assert all(name.startswith(moved) for name in names)
    assert all(any(name.startswith(part) for name in names) for part in moved)
    statistics = {name for name in names if "running" in name}
    assert bool(statistics) == (BACKBONE in moved or f"{BACKBONE}.layers.1" in moved)


def test_running_statistics_stay_while_scales_learn(
    task: Captioning, model: CnnTransformer
) -> None:
    before = weights(model)
    retrain_(model, step(batch_norm="running"), task)
    names = changed(before, model)
    assert not any("running" in name or "num_batches" in name for name in names)
    norms = [n for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert {f"{name}.weight" for name in norms} <= names


@pytest.mark.parametrize(
    ("changes", "is_trained"),
    [({}, True), ({"exclude": BACKBONE}, False), ({"batch_norm": "running"}, False)],
    ids=["trained", "frozen", "running"],
)
def test_norms_without_scale_and_shift_train_with_what_is_beside_them(
    changes: dict[str, Any], is_trained: bool, task: Captioning, model: CnnTransformer
) -> None:
    backbone = model.get_submodule(BACKBONE)
    backbone.bn_stem = torch.nn.BatchNorm2d(24, affine=False)
    before = weights(model)
    retrain_(model, step(**changes), task)
    name = f"{BACKBONE}.bn_stem.running_mean"
    assert (name in changed(before, model)) == is_trained


def test_the_model_comes_back_ready_to_run(task: Captioning, model: CnnTransformer) -> None:
    retrain_(model, step(exclude=BACKBONE), task)
    assert not any(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_cached_features_train_as_pixels_do(
    task: Captioning, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_features, from_pixels = tiny_captioner(task), tiny_captioner(task)
    retrain_(from_features, step(exclude=BACKBONE), task)
    every = [name for name, _ in from_pixels.named_parameters()]
    batches = task.training_batches
    monkeypatch.setattr(task, "training_batches", lambda m, b, _, seed: batches(m, b, every, seed))
    retrain_(from_pixels, step(exclude=BACKBONE), task)
    for name, tensor in from_features.state_dict().items():
        # the cache holds fp16
        torch.testing.assert_close(tensor, from_pixels.state_dict()[name], atol=3e-3, rtol=0)


@pytest.mark.parametrize("lr", [1e30, 1e38])
def test_what_is_not_finite_stops_the_trial(
    lr: float, task: Captioning, model: CnnTransformer
) -> None:
    with pytest.raises(TrialStopped, match=r"(loss|gradient) became (nan|inf) at step [23] of 9"):
        retrain_(model, step(steps=9, lr=lr, warmup=0, schedule="constant"), task)
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_weights_that_overflow_at_the_last_step_stop_the_trial(
    task: Captioning, model: CnnTransformer
) -> None:
    with pytest.raises(TrialStopped, match="the weights are not finite after step 1 of 1"):
        retrain_(model, step(steps=1, lr=1e39), task)


@pytest.mark.parametrize("changes", [{"distill": 0.9}, {"hidden": 1.0}], ids=["logits", "hidden"])
def test_distillation_pulls_towards_the_teacher(
    changes: dict[str, float], task: Captioning
) -> None:
    teacher = tiny_captioner(task)
    with torch.no_grad():
        for parameter in teacher.decoder.layers.parameters():
            parameter.mul_(1.5)
    before = weights(teacher)
    distances = []
    for settings in ({}, changes):
        student = tiny_captioner(task)
        retrain_(student, step(steps=12, **settings), task, teacher)
        distances.append((logits(task, student) - logits(task, teacher)).square().mean())
    assert distances[1] < distances[0]
    assert changed(before, teacher) == set()


def test_a_teacher_is_needed_and_runs_in_evaluation_mode(
    task: Captioning, model: CnnTransformer
) -> None:
    with pytest.raises(UserError, match=r"retrain: must learn from the data alone .* distill 0\.5"):
        retrain_(model, step(distill=0.5), task)
    teacher = tiny_captioner(task).train()
    before = weights(teacher)
    retrain_(model, step(distill=0.5), task, teacher)
    assert not teacher.training
    assert changed(before, teacher) == set()


@pytest.mark.parametrize(
    "changes",
    [{"distill": 0.5}, {"hidden": 1.0}, {"loss": "features"}],
    ids=["logits", "hidden", "features"],
)
def test_a_teacher_reads_what_a_batch_holds_however_the_student_rounds_it(
    changes: dict[str, Any],
) -> None:
    task, settings = Bars(), step(**changes)
    student, teacher = task.build(), task.build()
    batches = task.training_batches([student, teacher], settings.batch_size, [], seed=0)
    with torch.no_grad():
        expected = [
            teacher.eval()(given["inputs"])
            for _, given in itertools.islice(batches, settings.steps)
        ]
    seen: list[torch.Tensor] = []
    teacher.register_forward_hook(lambda _, __, outputs: seen.append(outputs))
    regime, _ = fake_quantized(Compressed(student), Quantize(layers="**", bits=4, qat=True))
    assert regime.ranges  # its first layer reads the batch, which both are given, in 8 bits
    retrain_(student, settings, task, teacher, [regime])
    assert all(map(torch.equal, seen, expected))
    assert len(seen) == len(expected)


class Recorder:
    """A regime that adds nothing and writes down when it is called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []
        self.own = nn.Parameter(torch.ones(1))
        self.passes = 0

    def idle(self, trainable: object) -> str | None:
        return None

    def parameters(self) -> list[nn.Parameter]:
        return [self.own]

    @contextmanager
    def active(self, model: nn.Module) -> Iterator[None]:
        self.passes += 1
        self.calls.append(("begins", self.passes))
        yield
        self.calls.append(("ends", self.passes))

    def loss(self, model: nn.Module, progress: float) -> torch.Tensor | None:
        self.calls.append(("loss", progress))
        return self.own.sum() if progress > 0 else None

    def after_step(self, model: nn.Module, progress: float) -> None:
        self.calls.append(("after_step", progress))

    def finish(self, model: nn.Module) -> None:
        self.calls.append(("finish", 1.0))


def test_a_regime_acts_around_every_step(task: Captioning, model: CnnTransformer) -> None:
    regime = Recorder()
    retrain_(model, step(steps=2, warmup=0), task, regimes=[regime])
    assert regime.calls == [
        ("begins", 1),
        ("ends", 1),
        ("loss", 0.0),
        ("after_step", 0.5),
        ("begins", 2),
        ("ends", 2),
        ("loss", 0.5),
        ("after_step", 1.0),
        ("finish", 1.0),
    ]
    assert regime.own.item() < 1


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("cosine", [0.5, 1, 1, 0.962, 0.854, 0.691, 0.5, 0.309, 0.146, 0.038]),
    ],
)
def test_the_learning_rate_warms_up_and_falls(schedule: str, factors: list[float]) -> None:
    settings = step(steps=10, warmup=0.2, schedule=schedule)
    found = [learning_rate_factor(settings, index) for index in range(10)]
    assert found == pytest.approx(factors, abs=1e-3)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_short_retrain_has_no_warm_up(steps: int) -> None:
    assert learning_rate_factor(step(steps=steps), 0) == 1


def test_names_are_parameters_and_a_shared_one_has_one(model: CnnTransformer) -> None:
    names = trainable_names(model, step())
    assert names == {name for name, _ in model.named_parameters()}
    assert "decoder.head.weight" not in names
    with pytest.raises(PolicyError, match=r"retrain\.train: must match a parameter, but \['x'\]"):
        trainable_names(model, step(train="x"))


def test_features_are_learnt_from_the_teacher_alone(
    task: Captioning, model: CnnTransformer
) -> None:
    teacher = tiny_captioner(task)
    model.encoder.projection.reset_parameters()
    before = weights(model)
    losses: list[float] = []
    retrain_(
        model,
        step(loss="features", steps=30, train="encoder"),
        task,
        teacher,
        on_step=lambda done, total, loss: losses.append(loss),
    )
    assert losses[-1] < losses[0] / 2
    assert all(name.startswith("encoder.") for name in changed(before, model))
