"""Every name a space file may hold, each with one line about it.

The lines are the first of the docstrings where the names are functions or classes. Those are read
from the source, for importing it would load torch and take seconds.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import get_args

from autocomp.cli.keys import step_keys
from autocomp.fields import WEIGHT_BITS
from autocomp.patterns import Per
from autocomp.policy import (
    STEPS,
    BatchNorm,
    Criterion,
    Precision,
    Schedule,
    Scope,
    Selection,
    UnitCriterion,
)
from autocomp.rounding import FixedMethod, RangeMethod
from autocomp.space.domains import DOMAINS
from autocomp.space.metrics import METRICS
from autocomp.space.space import Sampler
from autocomp.titles import MEANINGS

Lines = dict[str, str]

LINES: dict[str, Lines] = {
    "scopes": {
        "local": "The ratio is taken of each layer's channels.",
        "global": "The ratio is taken of all matched channels; scores are normalised by group.",
    },
    "losses": {
        "cross_entropy": "Cross-entropy against the captions or classes, with label_smoothing.",
        "distill": "T^2 KL(teacher || student) of softened logits; the teacher is the dense model.",
        "hidden": "Mean squared error between hidden states of layers of the same name.",
        "features": "Mean squared error to the dense model's features of an image, and no other.",
        "gamma_l1": "Strength x abs(gamma) of BatchNorm scales, attached by a step of its own.",
    },
    "schedules": {
        "cosine": "After warm-up from lr to 0 along half a cosine.",
        "linear": "After warm-up from lr to 0 in a straight line.",
        "constant": "After warm-up lr throughout.",
    },
    "precisions": {
        "auto": "bf16 where the device computes in it fast, else fp32.",
        "fp32": "Single precision throughout.",
        "bf16": "Forward passes in bfloat16, weights in single precision.",
    },
    "batch_norms": {
        "batch": "Normalises with the batch's statistics and follows them.",
        "running": "Keeps the statistics it has; scale and shift still learn.",
    },
    "bits": {
        "2": "2-bit integers; rounded to nearest they keep little, trained or compensated more.",
        "3": "3-bit integers on disk, computed at 4 bits in linear layers and embeddings.",
        "4": "4-bit integers, with a scale for each group of inputs or output channel.",
        "5": "5-bit integers on disk, computed at 8 bits.",
        "6": "6-bit integers on disk, computed at 8 bits.",
        "8": "8-bit integers, with a scale for each group of inputs or output channel.",
        "16": "Half precision on disk, computed in single precision.",
        "32": "Floating point, as the layer is.",
    },
    "fixed_methods": {
        "linear": "Even levels whose distance is a power of two.",
        "minmax": "Even levels from the least to the greatest value.",
        "log": "Even levels of the logarithm, a sign, and zero.",
        "tanh": "Even levels of the hyperbolic tangent.",
    },
    "per": {
        "layer": "One parameter a layer.",
        "block": "One parameter a block: what ends with the first numbers in a name.",
        "stage": "One parameter a stage: what holds blocks.",
        "pattern": "One parameter for all that the patterns match.",
    },
    "models": {
        "cnn_lstm": "A grid of features of any convolutional net, an LSTM or GRU decoder.",
        "cnn_transformer": "A grid of features of any convolutional net, a Transformer decoder.",
    },
    "classifiers": {
        "cifar_resnet20": "0.27 M parameters, option-A shortcuts (He et al. 2016, section 4.2).",
        "cifar_resnet32": "The same with 32 layers, 0.46 M parameters.",
        "cifar_resnet44": "The same with 44 layers, 0.66 M parameters.",
        "cifar_resnet56": "The same with 56 layers, 0.85 M parameters.",
        "cifar_resnet18": "ResNet-18 at stride 1 to begin with, 11.2 M parameters.",
        "cifar_vgg16": "VGG16 with one linear layer, 14.7 M parameters.",
        "cifar_vgg16_bn": "The same with BatchNorm; torchvision's and timm's go by their names.",
    },
    "backbones": {
        "tiny_resnet": "For small images; torchvision's and timm's nets go by their names there.",
    },
}
"""What has no docstring of its own to quote."""


def _steps() -> Lines:
    return {kind: _first_line(step.__doc__) for kind, step in STEPS.items()}


def _domains() -> Lines:
    return {name: _first_line(domain.__doc__) for name, domain in DOMAINS.items()}


def _datasets() -> Lines:
    from autocomp.data import captions, labels

    return {
        name: _first_line(one.load.__doc__)
        for datasets in (captions.DATASETS, labels.DATASETS)
        for name, one in datasets.items()
    }


def _tasks() -> Lines:
    return {
        kind: _line(f"autocomp.tasks.{kind}", f"{kind.capitalize()}Settings")
        for kind in ("captioning", "classification", "python")
    }


def _targets() -> Lines:
    from autocomp.targets import TARGETS

    package = "autocomp.targets"
    return {name: _line(f"{package}.{name}.target") for name in TARGETS}


def _quoted(names: Iterable[str], module: str) -> Callable[[], Lines]:
    """Names that are those of functions in a module."""
    return lambda: {name: _line(module, name) for name in names}


def _written(kind: str, names: Iterable[object]) -> Callable[[], Lines]:
    """Names whose lines stand here."""
    return lambda: {str(name): LINES[kind][str(name)] for name in names}


def _line(module: str, name: str | None = None) -> str:
    """The first line of the docstring of a module, or of what it calls `name`."""
    tree = _tree(module)
    if name is None:
        return _first_line(ast.get_docstring(tree))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return _first_line(ast.get_docstring(node))
    raise AssertionError(f"{module} has no {name}")


@cache
def _tree(module: str) -> ast.Module:
    found = importlib.util.find_spec(module)
    assert found is not None, module
    assert found.origin is not None, module
    return ast.parse(Path(found.origin).read_text(encoding="utf-8"))


def _first_line(docstring: str | None) -> str:
    """The first line of a docstring, which says all that one line can."""
    return (docstring or "").strip().split("\n", 1)[0]


CATALOGUE: dict[str, Callable[[], Lines]] = {
    "steps": _steps,
    "keys": step_keys,
    "domains": _domains,
    "per": _written("per", get_args(Per)),
    "criteria": _quoted(get_args(Criterion), "autocomp.compress.importance"),
    "unit_criteria": _quoted(get_args(UnitCriterion), "autocomp.compress.transformer"),
    "scopes": _written("scopes", get_args(Scope)),
    "selections": _quoted(get_args(Selection), "autocomp.compress.depth"),
    "bits": _written("bits", WEIGHT_BITS),
    "fixed_methods": _written("fixed_methods", get_args(FixedMethod)),
    "ranges": _quoted(get_args(RangeMethod), "autocomp.compress.ranges"),
    "losses": _written("losses", LINES["losses"]),
    "schedules": _written("schedules", get_args(Schedule)),
    "precisions": _written("precisions", get_args(Precision)),
    "batch_norms": _written("batch_norms", get_args(BatchNorm)),
    "samplers": _quoted(get_args(Sampler), "autocomp.study.samplers"),
    "targets": _targets,
    "tasks": _tasks,
    "models": _written("models", LINES["models"]),
    "classifiers": _written("classifiers", LINES["classifiers"]),
    "backbones": _written("backbones", LINES["backbones"]),
    "datasets": _datasets,
    "metrics": lambda: {metric: MEANINGS[metric] for metric in METRICS},
}
"""Kind of name -> every name of that kind and its line."""
