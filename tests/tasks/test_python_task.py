"""A task of one's own: run only where it is trusted, and checked before it is used."""

from __future__ import annotations

import importlib
import io
import itertools
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bars import Bars
from torch import nn

from autocomp.errors import DataError, SpaceError, UserError
from autocomp.tasks.arrays import ArrayTask
from autocomp.tasks.registry import build_task, fingerprint, restore_task, task_settings
from autocomp.trust import is_trusted, trusting

SECTION: dict[str, Any] = {"kind": "python", "factory": "bars:Bars", "dense": {"steps": 1}}


def no_task() -> object:
    return object()


def test_code_is_run_only_where_it_is_trusted(tmp_path: Path) -> None:
    for make in (lambda: build_task(SECTION), lambda: restore_task(SECTION, tmp_path, UserError)):
        with pytest.raises(UserError, match=r"task\.factory: must be trusted .* --trust"):
            make()
        with trusting(False), pytest.raises(UserError, match="must be trusted"):
            make()
        with trusting():
            assert isinstance(make(), Bars)
        assert not is_trusted()


def test_trust_is_widened_and_never_narrowed() -> None:
    with trusting(), trusting(False):
        assert is_trusted()
    assert not is_trusted()


def test_settings_are_arguments() -> None:
    with trusting():
        task = build_task({**SECTION, "settings": {"side": 6, "count": 10}})
    assert task.inputs("train", 0, 99).shape == (10, 1, 6, 6)


def test_a_module_is_found_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lying_here.py").write_text("from bars import Bars as task\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [one for one in __import__("sys").path if one])
    with trusting():
        assert isinstance(build_task({**SECTION, "factory": "lying_here:task"}), Bars)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Writes modules of a working folder: `here(name=text)` gives the name of the first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    written: list[str] = []

    def write(**modules: str) -> str:
        for name, text in modules.items():
            sys.modules.pop(name, None)
            written.append(name)
            (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return next(iter(modules))

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_module:task", "No module named 'no_such_module'"),
        ("bars:Barz", "has no attribute 'Barz'"),
        ("bars:np", "is not a callable object"),
        ("builtins:dict", "no signature found"),
        (f"{__name__}:no_task", "lacks .*metric_names"),
        ("autocomp.tasks.arrays:ArrayTask", "abstract class ArrayTask .*scores"),
    ],
)
def test_what_gives_no_task_says_why(factory: str, message: str) -> None:
    with trusting(), pytest.raises(UserError, match=rf"task\.factory: must .*{message}"):
        build_task({**SECTION, "factory": factory})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def task(:", r"invalid syntax \(broken_\d\.py, line 1\)"),
        ("from bars import Rods as task", "cannot import name 'Rods'"),
    ],
    ids=["syntax", "import"],
)
def test_a_module_that_cannot_be_imported_says_why(
    text: str, message: str, here: Callable[..., str]
) -> None:
    name = here(**{f"broken_{len(text) % 10}": text})
    with (
        trusting(),
        pytest.raises(UserError, match=rf"task\.factory: must be .*{message}") as caught,
    ):
        build_task({**SECTION, "factory": f"{name}:task"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sdie": 6}, r"\(side, count\), but got an unexpected keyword argument 'sdie'"),
        ({"side": 6, "counts": 2}, "unexpected keyword argument 'counts'"),
    ],
    ids=["misspelt", "beside a right one"],
)
def test_settings_that_are_no_arguments_say_which(settings: Any, message: str) -> None:
    with trusting(), pytest.raises(UserError, match=rf"task\.settings: must be .*{message}"):
        build_task({**SECTION, "settings": settings})


def test_a_mistake_inside_a_factory_keeps_its_traceback(here: Callable[..., str]) -> None:
    name = here(mistaken="def task():\n    return len(3)")
    with trusting(), pytest.raises(TypeError, match="has no len"):
        build_task({**SECTION, "factory": f"{name}:task"})


@pytest.mark.parametrize("factory", ["bars", "bars.Bars", "../bars:Bars", "bars:Bars()", ":x"])
def test_a_factory_is_a_name_and_nothing_else(factory: str) -> None:
    with pytest.raises(
        SpaceError, match=r"task\.factory: must be package.module:function"
    ) as caught:
        task_settings({**SECTION, "factory": factory})
    assert ("did you mean 'bars:Bars'" in str(caught.value)) == (factory == "bars.Bars")


def test_data_that_is_not_there_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bars, "arrays", lambda task, split: np.load(f"no/such/{split}.npz"))
    with pytest.raises(DataError, match=r"task: arrays\('dev'\) must find its data, .*no/such/dev"):
        Bars().size("dev")


def test_the_fingerprint_is_of_data_weights_and_source() -> None:
    class Changed(Bars):
        seed = 1

    prints = [Bars().fingerprint(), Bars(count=49).fingerprint(), Changed().fingerprint()]
    assert len(set(prints)) == 3
    assert Bars().fingerprint() == prints[0]


def test_a_dense_model_is_of_its_settings_too() -> None:
    """What only the loss reads changes neither the data nor the initial weights."""
    sections = [{**SECTION, "settings": {"count": 8, "weight": one}} for one in (1, 10)]
    sections = [{**one, "factory": f"{__name__}:Weighted"} for one in sections]
    with trusting():
        tasks = [build_task(section) for section in sections]
    assert tasks[0].fingerprint() == tasks[1].fingerprint()
    prints = [fingerprint(task, one) for task, one in zip(tasks, sections, strict=True)]
    assert prints[0] != prints[1]
    assert fingerprint(tasks[0], sections[0]) == prints[0]


def test_a_dense_model_is_of_its_factory_too() -> None:
    sections = [{**SECTION, "factory": f"{__name__}:{name}"} for name in ("twelve", "dozen")]
    with trusting():
        prints = {fingerprint(build_task(one), one) for one in sections}
    assert len(prints) == 2


def test_a_given_dense_model_is_none_of_the_source() -> None:
    section = {**SECTION, "dense": {"checkpoint": "net.safetensors"}}
    with trusting():
        task = build_task(section)
        assert fingerprint(task, section) == task.fingerprint()


def twelve() -> Bars:
    return Bars(count=12)


def dozen() -> Bars:
    return Bars(count=12)


def test_a_dense_model_is_of_the_source_its_task_imports(here: Callable[..., str]) -> None:
    prints = []
    for width in ("import unseen\nWIDTH = 8", "import unseen\nWIDTH = 9", "WIDTH = 9"):
        text = "from bars import Bars\nfrom widths import WIDTH\nmade = lambda: Bars(count=8)"
        section = {**SECTION, "factory": f"{here(maker=text, widths=width, unseen='')}:made"}
        with trusting():
            prints.append(fingerprint(build_task(section), section))
    assert len(set(prints)) == 3


class Weighted(Bars):
    def __init__(self, count: int, weight: float) -> None:
        super().__init__(count=count)
        self.weight = weight

    def loss(self, outputs: Any, targets: Any, label_smoothing: float) -> torch.Tensor:
        return self.weight * super().loss(outputs, targets, label_smoothing)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([1]), "must be a NumPy array"),
        (b"", "must be a NumPy array"),
        (np.array([{}]), "must be a NumPy array"),
        (np.zeros((1, 8, 7), np.float32), r"of shape \(1, 8, 8\) .* but got \(1, 8, 7\)"),
        (np.zeros((1, 8, 8)), "type float32, but got .* float64"),
    ],
    ids=["pickle", "nothing", "objects", "shape", "type"],
)
def test_a_file_is_an_array_and_runs_no_code(content: Any, message: str) -> None:
    if isinstance(content, np.ndarray):
        buffer = io.BytesIO()
        np.save(buffer, content)
        content = buffer.getvalue()
    with pytest.raises(DataError, match=message):
        Bars().read(content)


def test_images_cannot_be_smaller() -> None:
    with pytest.raises(UserError, match="are no images"):
        Bars().resized(16)


def test_inputs_without_targets_are_refused() -> None:
    class Uneven(Bars):
        def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
            images, upright = super().arrays(split)
            return images, upright[:-1]

    with pytest.raises(DataError, match=r"dev: must have a target for each .* 47 for 48"):
        Uneven().size("dev")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x, y: (x.astype(np.float64), y),
            r"dev: inputs: .* got float64; \.astype\(np.float32",
        ),
        (lambda x, y: (x.astype(">i4"), y), r"dev: inputs: .* got >i4; \.astype\(np.int64"),
        (lambda x, y: (x, y.astype(np.int32)), r"dev: targets: .* float32, int64, but got int32"),
        (lambda x, y: (x, y.astype(np.float64)), r"dev: targets: .* got float64; .*float32"),
        (lambda x, y: (x.tolist(), y), "dev: inputs: must be an array of .*, but got list"),
        (lambda x, y: (x, y.astype(str)), r"dev: targets: .* but got <U\d+$"),
    ],
    ids=["float64", "byte order", "int32 targets", "float64 targets", "list", "words"],
)
def test_types_that_no_model_takes_are_refused(change: Any, message: str) -> None:
    class Changed(Bars):
        def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
            return change(*super().arrays(split))

    with pytest.raises(DataError, match=message):
        Changed().size("dev")


def twice(task: Bars) -> nn.Module:
    return Twice(ArrayTask.build(task))


class Twice(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.net(x), x


@pytest.mark.parametrize(
    ("method", "own", "message"),
    [
        ("build", twice, "task: net must give one tensor, but gives tuple"),
        ("net", lambda task: nn.Flatten(0), r"decide must be .* where outputs are not \(B, K\)"),
        (
            "decide",
            lambda *_: [0, 1],
            "decide must give a prediction for each of 1 examples, but g",
        ),
        ("scores", lambda *_: [1.0], "task: scores must be a dictionary, but got list"),
        ("scores", lambda *_: {"hits": 1.0}, r"scores must have one hits for each of 1 examples"),
    ],
    ids=["two outputs", "no classes", "two of one", "a list", "a mean"],
)
def test_what_a_task_must_not_give_is_said_in_a_line(
    method: str, own: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bars, method, own)
    with pytest.raises(UserError, match=message) as caught:
        Bars(side=4).metric_names()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda one: one.sum(1), r"shape \(6,\)"),
        (lambda one: 0.5, "0.5"),
        (lambda one: None, "None"),
    ],
    ids=["one an example", "a number", "nothing"],
)
def test_a_loss_must_be_a_scalar(loss: Any, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Bars(side=4)
    monkeypatch.setattr(Bars, "loss", lambda task, outputs, *_: loss(outputs))
    ((batch,),) = itertools.islice(task.training_batches([task.net()], 6, (), 0), 1)
    with pytest.raises(UserError, match=f"task: loss must be a scalar tensor, .* but got {found}"):
        task.forward(task.build(), batch)
