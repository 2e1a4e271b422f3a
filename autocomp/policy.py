"""A policy: the frozen, ordered list of steps that turns a dense model into a compressed one.

A step's `layers` are glob patterns over the model's module names (`*` crosses dots; a pattern that
names a module also matches everything below it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from autocomp.decisions import Decision, content_id, dump_yaml, load_yaml, validate
from autocomp.errors import PolicyError, unknown
from autocomp.fields import Patterns, PolicyStep, RatioByUnit
from autocomp.rounding import FixedPoint, Quantize

Criterion = Literal["l1", "l2", "bn_scale", "bn_variance", "group_norm", "taylor", "random"]
UnitCriterion = Literal["l1", "l2", "taylor", "random"]
Scope = Literal["local", "global"]
Selection = Literal["uniform", "first", "last", "block_influence"]
Schedule = Literal["cosine", "linear", "constant"]
Precision = Literal["auto", "fp32", "bf16"]
BatchNorm = Literal["batch", "running"]
RetrainLoss = Literal["task", "features"]

KEEP_CODES = ("quantize", "fixed_point", "drop_layers")
"""Steps that may follow one that rounds weights: they change none that has its codes."""
TRAIN_CODES = (*KEEP_CODES, "retrain", "gamma_l1")
"""Those that may follow one with `qat: true`, whose codes are there after the next retrain."""


class PruneChannels(PolicyStep):
    """Remove convolution channels, coupled layers together (DepGraph, 2301.12900).

    `ratio` is the fraction of each layer's channels removed; with `scope: global` the fraction of
    all matched channels. What stays is rounded up to a multiple of `round_to`.
    """

    kind: Literal["prune_channels"] = "prune_channels"
    layers: Patterns
    exclude: Patterns = ()
    ratio: RatioByUnit
    criterion: Criterion = "l2"
    scope: Scope = "local"
    round_to: int = Field(default=8, ge=1)
    calibration_batches: int = Field(default=8, ge=1)


class PruneHeads(PolicyStep):
    """Remove whole attention heads (rows of q, k, v and columns of o); at least one stays."""

    kind: Literal["prune_heads"] = "prune_heads"
    layers: Patterns
    exclude: Patterns = ()
    ratio: RatioByUnit
    criterion: UnitCriterion = "l2"
    calibration_batches: int = Field(default=8, ge=1)


class PruneWidth(PolicyStep):
    """Remove hidden units of feed-forward blocks and recurrent decoders.

    What stays is rounded up to a multiple of `round_to`.
    """

    kind: Literal["prune_width"] = "prune_width"
    layers: Patterns
    exclude: Patterns = ()
    ratio: RatioByUnit
    criterion: UnitCriterion = "l2"
    round_to: int = Field(default=32, ge=1)
    calibration_batches: int = Field(default=8, ge=1)


class DropLayers(PolicyStep):
    """Keep `keep` of the layers in the container `layers`; survivors keep their weights and names.

    A container that has no more than `keep` layers is left as it is.
    """

    kind: Literal["drop_layers"] = "drop_layers"
    layers: str
    keep: int = Field(ge=0)
    select: Selection = "uniform"
    calibration_batches: int = Field(default=8, ge=1)


class Resize(PolicyStep):
    """Let the model take images of `image_size` pixels a side, as a rule fewer than before.

    The positions of its features are spread over the same picture; no weight changes.
    """

    kind: Literal["resize"] = "resize"
    image_size: int = Field(ge=16, le=2048)


class Retrain(PolicyStep):
    """Train what `train` matches for `steps` optimiser steps against the data and the teacher.

    With `loss: features` only the model's features of an image are pulled towards the dense
    model's: cheap, and a good start after channels were removed (FitNets, 1412.6550). Otherwise
    loss = (1 - distill) x cross-entropy + distill x T^2 KL(teacher || student) at `temperature` T
    + hidden x mean squared error between hidden states of layers of the same name in the dense
    model. The teacher is the dense model. With `batch_norm: running` BatchNorm keeps its statistics
    and learns scale and shift only: better where batches are small.
    """

    kind: Literal["retrain"] = "retrain"
    steps: int = Field(ge=0)
    lr: float = Field(default=3e-4, gt=0)
    batch_size: int = Field(default=32, ge=1)
    train: Patterns = ("**",)
    exclude: Patterns = ()
    distill: float = Field(default=0.0, ge=0, le=1)
    temperature: float = Field(default=2.0, gt=0)
    hidden: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    schedule: Schedule = "cosine"
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Precision = "auto"
    batch_norm: BatchNorm = "batch"
    loss: RetrainLoss = "task"

    @model_validator(mode="after")
    def _check_loss(self) -> Retrain:
        if self.loss == "features" and (self.distill or self.hidden):
            raise ValueError(
                "distill and hidden must be 0 with loss: features, which is all there is then, "
                f"but got distill={self.distill:g}, hidden={self.hidden:g}"
            )
        return self

    @property
    def has_teacher(self) -> bool:
        """Whether it learns from the dense model."""
        return self.loss == "features" or self.distill > 0 or self.hidden > 0


class GammaL1(PolicyStep):
    """Add s x sign(gamma) to the gradient of the matched BatchNorm scales during the next retrain.

    Network Slimming, 1708.06519: it drives unneeded channels towards zero before they are pruned.
    """

    kind: Literal["gamma_l1"] = "gamma_l1"
    layers: Patterns
    exclude: Patterns = ()
    strength: float = Field(default=1e-5, ge=0)


STEPS: dict[str, type[Decision]] = {
    "prune_channels": PruneChannels,
    "prune_heads": PruneHeads,
    "prune_width": PruneWidth,
    "drop_layers": DropLayers,
    "resize": Resize,
    "gamma_l1": GammaL1,
    "retrain": Retrain,
    "quantize": Quantize,
    "fixed_point": FixedPoint,
}

NOTHING: dict[str, tuple[str, float]] = {
    "prune_channels": ("ratio", 0),
    "prune_heads": ("ratio", 0),
    "prune_width": ("ratio", 0),
    "gamma_l1": ("strength", 0),
    "retrain": ("steps", 0),
    "quantize": ("bits", 32),
    "fixed_point": ("bits", 32),
}
"""Kind of step -> the field that says how much it does, and where that is nothing."""


def is_idle(step: Decision, depths: Mapping[str, int], image_size: int | None = None) -> bool:
    """True for a step that changes nothing in a dense model.

    It has `depths` layers by container and takes images of `image_size` pixels.
    """
    if isinstance(step, DropLayers):
        return step.keep >= depths.get(step.layers, math.inf)
    if isinstance(step, Resize):
        return step.image_size == image_size
    if isinstance(step, FixedPoint) and min(step.activation_bits, step.batch_norm_bits) < 32:
        return False
    field, nothing = NOTHING[getattr(step, "kind", "")]
    value = getattr(step, field)
    return all(one == nothing for one in (value.values() if isinstance(value, dict) else [value]))


def attached(step: Decision) -> str | None:
    """What a step is called that does nothing but in the next retrain; None for any other."""
    if isinstance(step, Quantize):
        return "quantize with qat: true" if step.qat else None
    return "gamma_l1" if isinstance(step, GammaL1) else None


def _check_kind(value: Any) -> Any:
    if isinstance(value, Decision):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a step with a kind, but got {value!r}")
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in STEPS:
        raise ValueError(unknown("kind", str(kind), list(STEPS)))
    return value


Step = Annotated[
    PruneChannels
    | PruneHeads
    | PruneWidth
    | DropLayers
    | Resize
    | GammaL1
    | Retrain
    | Quantize
    | FixedPoint,
    Field(discriminator="kind"),
]


def _way_out(kind: str, first: str) -> str:
    is_trainable = (kind, first) == ("retrain", "quantize")
    return "; with qat: true that one trains on through its rounding" if is_trainable else ""


class Policy(Decision):
    """An ordered list of steps; two policies that say the same have the same `id`."""

    steps: tuple[Annotated[Step, BeforeValidator(_check_kind)], ...] = ()

    @model_validator(mode="after")
    def _check_order(self) -> Policy:
        kinds = [step.kind for step in self.steps]
        may_follow: dict[int, tuple[str, ...]] = {}
        for index, step in enumerate(self.steps):
            for first, kept in may_follow.items():
                if step.kind not in kept:
                    raise ValueError(
                        f"steps.{index}: a {step.kind} must come before every {kinds[first]} step, "
                        f"but it follows steps.{first}.{kinds[first]}"
                        f"{_way_out(step.kind, kinds[first])}"
                    )
            if isinstance(step, Quantize | FixedPoint):
                is_trained = isinstance(step, Quantize) and step.qat
                may_follow[index] = TRAIN_CODES if is_trained else KEEP_CODES
            name = attached(step)
            if name is not None and "retrain" not in kinds[index:]:
                raise ValueError(
                    f"steps.{index}: {name} must be followed by a retrain, but none follows"
                )
        return self

    @cached_property
    def id(self) -> str:
        return content_id(self)

    def __hash__(self) -> int:
        return hash(self.id)

    def to_yaml(self) -> str:
        return dump_yaml(self)

    @classmethod
    def load(cls, path: Path | str) -> Policy:
        """The policy a file holds; `PolicyError` if it cannot be read or holds mistakes."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as failure:
            raise PolicyError(f"{path}: must be a readable policy file, but {failure}") from None
        return cls.from_yaml(text, str(path))

    @classmethod
    def from_yaml(cls, text: str, where: str = "policy") -> Policy:
        """The policy a YAML text holds; `PolicyError` lists every mistake."""
        value = load_yaml(text, where, PolicyError)
        try:
            return validate(cls, value, "", PolicyError)
        except PolicyError as mistake:
            raise PolicyError(*(f"{where}: {line}" for line in mistake.problems)) from None
