"""The one training loop: it trains dense models and retrains compressed ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from autocomp.errors import PolicyError, TrialStopped, UserError
from autocomp.patterns import matching
from autocomp.policy import Retrain
from autocomp.retrain.losses import (
    feature_distillation,
    hidden_distillation,
    logit_distillation,
)
from autocomp.retrain.precision import precision
from autocomp.retrain.regimes import Regime

Progress = Callable[[int, int, float], None]


class Trainable(Protocol):
    """The part of a task that training needs (`autocomp.tasks.base.Task` has it)."""

    def training_batches(
        self, models: Sequence[nn.Module], batch_size: int, trainable: Collection[str], seed: int
    ) -> Iterator[tuple[Any, ...]]: ...

    def forward(self, model: nn.Module, batch: Any, label_smoothing: float = 0.0) -> Any: ...

    def features(self, model: nn.Module, batch: Any) -> Tensor: ...


def retrain_(
    model: nn.Module,
    step: Retrain,
    task: Trainable,
    teacher: nn.Module | None = None,
    regimes: Sequence[Regime] = (),
    seed: int = 0,
    on_step: Progress | None = None,
) -> None:
    """Train `model` in place as `step` says; it comes back on the CPU in evaluation mode.

    `teacher` is needed when the step distils. `on_step(done, total, loss)` reports progress. A
    loss, gradient or weight that is not finite raises `TrialStopped`.
    """
    trainable = trainable_names(model, step)
    models = [model, *_teachers(step, teacher)]
    torch.manual_seed(seed)
    with _in_training(models, step, trainable) as device:
        parameters = [p for name, p in model.named_parameters() if name in trainable]
        parameters += [p for regime in regimes for p in regime.parameters()]
        optimizer = torch.optim.AdamW(
            parameters, lr=step.lr, weight_decay=step.weight_decay, fused=True
        )
        batches = task.training_batches(models, step.batch_size, trainable, seed)
        for index in range(step.steps):
            parts = [{k: v.to(device) for k, v in part.items()} for part in next(batches)]
            with precision(step.precision, device):
                # first, and alone: both models may be given the very same tensors
                taught = _taught(models, step, task, parts)
                with _active(regimes, model):
                    loss = _loss(model, step, task, parts[0], taught)
            for regime in regimes:
                extra = regime.loss(model, index / step.steps)
                loss = loss if extra is None else loss + extra
            _descend(optimizer, loss, step, index)
            for regime in regimes:
                regime.after_step(model, (index + 1) / step.steps)
            if on_step:
                on_step(index + 1, step.steps, loss.item())
        for regime in regimes:
            regime.finish(model)
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise TrialStopped(f"the weights are not finite after step {step.steps} of {step.steps}")


def trainable_names(model: nn.Module, step: Retrain) -> frozenset[str]:
    """The parameters a retrain trains; a pattern that means none is a `PolicyError`."""
    names = [name for name, _ in model.named_parameters()]
    chosen = matching(names, step.train, step.exclude)
    if not chosen:
        raise PolicyError(
            f"retrain.train: must match a parameter, but {list(step.train)} "
            f"without {list(step.exclude)} matches none"
        )
    return frozenset(chosen)


def learning_rate_factor(step: Retrain, index: int) -> float:
    """Warm-up, then the schedule, as a fraction of `step.lr`; `index` counts from 0."""
    warmup = int(step.warmup * step.steps)
    if index < warmup:
        return (index + 1) / warmup
    progress = (index - warmup) / max(1, step.steps - warmup)
    if step.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress if step.schedule == "linear" else 1.0


def _teachers(step: Retrain, teacher: nn.Module | None) -> list[nn.Module]:
    """The teacher, in evaluation mode, if the step learns from one."""
    if not step.has_teacher:
        return []
    if teacher is None:
        raise UserError(
            "retrain: must learn from the data alone where there is no dense model to learn from, "
            f"but got distill {step.distill:g}, hidden {step.hidden:g}, loss {step.loss}"
        )
    return [teacher.eval()]


@contextmanager
def _active(regimes: Sequence[Regime], model: nn.Module) -> Iterator[None]:
    with ExitStack() as stack:
        for regime in regimes:
            stack.enter_context(regime.active(model))
        yield


@contextmanager
def _in_training(
    models: Sequence[nn.Module], step: Retrain, trainable: Collection[str]
) -> Iterator[torch.device]:
    """The first of `models` set up to train, all on the device; afterwards as they came."""
    model = models[0]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _set_modes(model, step, trainable)
    try:
        for each in models:
            each.to(device)
        yield device
    finally:
        for each in models:
            each.cpu().eval()
        model.requires_grad_(True)
        model.zero_grad(set_to_none=True)


def _taught(
    models: Sequence[nn.Module], step: Retrain, task: Trainable, parts: Sequence[Any]
) -> Any:
    """What the teacher, the second model if there are two, makes of its part of a batch."""
    if len(models) == 1:
        return None
    with torch.no_grad():
        if step.loss == "features":
            return task.features(models[1], parts[1])
        return task.forward(models[1], parts[1])


def _loss(model: nn.Module, step: Retrain, task: Trainable, part: Any, taught: Any) -> Tensor:
    """The loss of `model` on its part of a batch, of which a teacher has `taught` something."""
    if step.loss == "features":
        found = task.features(model, part)
        if not found.requires_grad:
            raise PolicyError(
                "retrain.train: must match a parameter of the encoder for loss: features, "
                f"but {list(step.train)} without {list(step.exclude)} matches none"
            )
        return feature_distillation(found, taught)
    outputs = task.forward(model, part, step.label_smoothing)
    loss: Tensor = outputs.loss.float()
    if step.distill > 0:
        soft = logit_distillation(outputs.logits, taught.logits, step.temperature)
        loss = (1 - step.distill) * loss + step.distill * soft
    if step.hidden > 0:
        loss = loss + step.hidden * hidden_distillation(outputs.hidden, taught.hidden)
    return loss


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, step: Retrain, index: int) -> None:
    """One step down the clipped gradient of `loss`; `TrialStopped` if either is not finite."""
    _check_finite("loss", loss, step, index)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, step.clip_norm)
    _check_finite("gradient", norm, step, index)
    for group in optimizer.param_groups:
        group["lr"] = step.lr * learning_rate_factor(step, index)
    optimizer.step()


def _check_finite(what: str, value: Tensor, step: Retrain, index: int) -> None:
    if not math.isfinite(number := value.item()):
        raise TrialStopped(f"the {what} became {number} at step {index + 1} of {step.steps}")


def _set_modes(model: nn.Module, step: Retrain, trainable: Collection[str]) -> None:
    """Gradients for what is trained; what is frozen also keeps its BatchNorm statistics."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)
    model.train()
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # one without scale and shift trains with what is beside it
            place = f"{name}." if module.affine else name[: name.rfind(".") + 1]
            is_trained = any(parameter.startswith(place) for parameter in trainable)
            module.train(is_trained and step.batch_norm == "batch")
