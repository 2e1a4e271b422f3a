"""The conformance suite passes for every task there is, and finds what is wrong with others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bars import Bars
from label_files import shapes_section, write_shapes
from tiny_models import RECURRENT, SECTION
from torch import nn

from autocomp.errors import UserError
from autocomp.tasks.registry import TASKS
from autocomp.testing import CHECKS, check_task

pytestmark = pytest.mark.usefixtures("tiny")
RECURRENT_TRIED = ("lstm attention", "gru merge")
OWN = {"kind": "python", "factory": "bars:Bars", "dense": {"steps": 1}}


@pytest.fixture(scope="session")
def sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = write_shapes(tmp_path_factory.mktemp("shapes"), count=8)
    recurrent = {name: SECTION | {"model": RECURRENT[name]} for name in RECURRENT_TRIED}
    return {
        "captioning": SECTION,
        "classification": shapes_section(root),
        "python": OWN,
        **recurrent,
    }


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", [*TASKS, *RECURRENT_TRIED])
def test_every_task_conforms(name: str, check: str, sections: dict[str, Any]) -> None:
    check_task(sections[name], check)


class Drifting(Bars):
    def net(self) -> Any:
        torch.seed()
        return super().net()


class Leaky(Bars):
    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        return super().arrays("train")


class Boastful(Bars):
    def metrics(self, predictions: Sequence[Any], split: Any) -> dict[str, float]:
        return {"accuracy": 1.0}


class Borrowing(Bars):
    def scores(self, predictions: Any, targets: np.ndarray) -> dict[str, np.ndarray]:
        return {"size_mb": np.equal(predictions, targets)}


class Careless(Bars):
    def read(self, raw: bytes) -> np.ndarray:
        return super().read(raw) + 1


class Crowd(Bars):
    def predict(self, run: Any, inputs: np.ndarray, steps: int | None = None) -> list[Any]:
        return [len(inputs)] * len(inputs)


class Secretive(Bars):
    def decide(self, outputs: np.ndarray) -> list[Any]:
        return [(int(one),) for one in outputs.argmax(axis=1)]


class Stubborn(Bars):
    def __init__(self) -> None:
        super().__init__(side=32)
        self.image_size = 32

    def resized(self, image_size: int) -> Bars:
        return self


class Louder(nn.Module):
    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.net(inputs) * self.factor


class Fickle(Bars):
    calls = 0

    def graphs(self, model: nn.Module) -> dict[str, Any]:
        self.calls += 1
        return super().graphs(Louder(model, 3.0**self.calls))


@pytest.mark.parametrize(
    ("task", "check", "message"),
    [
        (Drifting, "builds_the_same_model", "the same weights every time"),
        (Leaky, "splits_are_whole_and_apart", "of dev must not be in train as well"),
        (Boastful, "predictions_are_kept_and_scored", "accuracy must be their mean"),
        (Borrowing, "predictions_are_kept_and_scored", "must not be called as what is measured"),
        (Careless, "raw_examples_are_the_inputs", "must be read as inputs has it"),
        (Crowd, "the_runtime_computes_what_pytorch_does", "what else is in its batch"),
        (Stubborn, "smaller_images_fit_the_model", "resized must make another task"),
        (Fickle, "a_checkpoint_is_the_model", "outputs must be the same in the runtime"),
        (Secretive, "predictions_are_kept_and_scored", "must be as JSON has it"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_wrong_is_found(task: type[Bars], check: str, message: str) -> None:
    section = {**OWN, "factory": f"{task.__module__}:{task.__name__}"}
    with pytest.raises(AssertionError, match=message):
        check_task(section, check)


def test_an_unknown_check_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'builds_the_same_model'"):
        check_task(OWN, "builds_the_same")
