"""The dense model is trained once, found again, and never mistaken for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from label_files import shapes_task, write_shapes
from safetensors.torch import load_file, save_file
from tiny_models import SECTION, tiny_task, weights

from autocomp.checkpoint.folder import write_config, write_model
from autocomp.compress.formats import Compressed
from autocomp.data.tokenizer import Tokenizer
from autocomp.dense import INITIAL, WEIGHTS, dense_key, dense_model
from autocomp.errors import CheckpointError, UserError
from autocomp.models.reshape import tensors
from autocomp.policy import Policy
from autocomp.targets import TargetSettings
from autocomp.tasks.captioning import Captioning
from autocomp.tasks.dense import DenseSettings


@pytest.fixture
def cache(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOCOMP_CACHE", str(tmp_path))
    return tmp_path / "dense"


@pytest.fixture
def task(cache: Path) -> Captioning:
    return tiny_task()


SETTINGS = DenseSettings.model_validate(SECTION["dense"])


def test_it_is_trained_once(task: Captioning, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    first = dense_model(
        task, SETTINGS, task.fingerprint(), 0, lambda done, total, loss: seen.append((done, total))
    )
    assert seen == [(step, 8) for step in range(1, 9)]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("autocomp.dense.retrain_", refuse)
    again = dense_model(tiny_task(), SETTINGS, tiny_task().fingerprint(), 0)
    assert not again.training
    expected = weights(first)
    for name, tensor in tensors(again).items():
        assert torch.equal(tensor, expected[name]), name


def test_what_it_started_from_is_kept(task: Captioning, cache: Path) -> None:
    model = dense_model(task, SETTINGS, task.fingerprint(), 0)
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    assert folder.name == dense_key(SETTINGS, task.fingerprint(), 0)
    initial, built = load_file(folder / INITIAL), tensors(task.build())
    assert all(torch.equal(tensor, built[name]) for name, tensor in initial.items())
    assert not torch.equal(
        initial["decoder.embedding.weight"], tensors(model)["decoder.embedding.weight"]
    )
    assert set(load_file(folder / WEIGHTS)) == set(initial)


STAGES = [{"steps": 2, "batch_size": 16, "exclude": "encoder.backbone"}, {"steps": 3}]


def test_stages_follow_one_another(task: Captioning) -> None:
    settings = DenseSettings.model_validate({"stages": STAGES})
    seen: list[tuple[int, int]] = []
    dense_model(task, settings, "stages", 0, lambda done, total, loss: seen.append((done, total)))
    assert seen == [(step, 5) for step in range(1, 6)]


def test_a_finished_stage_is_not_trained_again(task: Captioning, cache: Path) -> None:
    first = DenseSettings.model_validate({"stages": STAGES[:1]})
    both = DenseSettings.model_validate({"stages": STAGES})
    at_once = weights(dense_model(task, both, "at once", 0))
    dense_model(task, first, "in turn", 0)
    seen: list[int] = []
    in_turn = dense_model(task, both, "in turn", 0, lambda done, *_: seen.append(done))
    assert seen == [3, 4, 5]
    for name, tensor in tensors(in_turn).items():
        assert torch.equal(tensor, at_once[name]), name


@pytest.mark.parametrize(
    "change", [{"steps": 9}, {"lr": 1e-3}, {"exclude": "encoder"}, {"precision": "bf16"}]
)
def test_another_training_is_another_model(change: dict[str, Any]) -> None:
    other = DenseSettings.model_validate({**SECTION["dense"], **change})
    assert dense_key(other, "task", 0) != dense_key(SETTINGS, "task", 0)


def test_another_task_or_seed_is_another_model() -> None:
    keys = {dense_key(SETTINGS, task, seed) for task in ("a", "b") for seed in (0, 1)}
    assert len(keys) == 4
    assert dense_key(SETTINGS, "a", 0) in keys


def test_a_training_that_diverges_is_the_users_to_mend(task: Captioning, cache: Path) -> None:
    settings = DenseSettings.model_validate({**SECTION["dense"], "lr": 1e30})
    with pytest.raises(UserError, match=r"task\.dense\.stages\.0: must train to a finite loss"):
        dense_model(task, settings, "diverges", 0)
    assert not [path for path in cache.iterdir() if path.is_dir()]


@pytest.mark.parametrize("as_folder", [True, False], ids=["folder", "file"])
def test_a_users_own_weights_load(as_folder: bool, task: Captioning, tmp_path: Path) -> None:
    wanted = {name: tensor + 1 for name, tensor in tensors(task.build()).items()}
    save_file(wanted, tmp_path / WEIGHTS)
    path = tmp_path if as_folder else tmp_path / WEIGHTS
    model = dense_model(task, DenseSettings(checkpoint=str(path)), "mine", 0)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in tensors(model).items())


def test_a_checkpoint_whose_tensors_lie_together_loads(
    task: Captioning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autocomp.checkpoint.packing.MOST_NAMES", 0.0)
    compressed = Compressed(task.build().eval())
    artifact = write_model(tmp_path, task, TargetSettings(), compressed, Policy())
    write_config(artifact, compressed, SECTION, TargetSettings(), 0, "", 1, 1.0)
    assert set(load_file(tmp_path / WEIGHTS)) == {".floats"}
    model = dense_model(task, DenseSettings(checkpoint=str(tmp_path)), "mine", 0)
    wanted = tensors(compressed.module)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in tensors(model).items())


def test_weights_trained_on_other_words_are_refused(task: Captioning, tmp_path: Path) -> None:
    save_file(dict(tensors(task.build())), tmp_path / WEIGHTS)
    settings = DenseSettings(checkpoint=str(tmp_path))
    task.write_assets(tmp_path, threads=1)
    dense_model(task, settings, "mine", 0)
    words = task.tokenizer.words
    Tokenizer((*words[:4], *reversed(words[4:]))).save(tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match="must have the words of the training captions"):
        dense_model(task, settings, "mine", 0)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("absent", "must be a safetensors file, but"),
        ("garbage", "must be a safetensors file, but"),
        ("other", "1 are absent or of another shape, 'decoder.norm.weight' first"),
        ("deeper", "1 are of layers that it has not, 'decoder.layers.9.ffn.up.bias' first"),
        ("variable", "the environment variable NO_SUCH_VARIABLE must be set"),
    ],
)
def test_wrong_weights_are_refused_in_a_line(
    fault: str, message: str, task: Captioning, tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    if fault == "garbage":
        path.write_bytes(b"not weights")
    elif fault == "other":
        save_file(tensors(task.build()) | {"decoder.norm.weight": torch.zeros(3)}, path)
    elif fault == "deeper":
        more = {"decoder.layers.9.ffn.up.bias": torch.zeros(3)}
        save_file(tensors(task.build()) | more, path)
    given = "${NO_SUCH_VARIABLE}/mine" if fault == "variable" else str(path)
    with pytest.raises((CheckpointError, UserError)) as caught:
        dense_model(task, DenseSettings(checkpoint=given), "mine", 0)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_steps_take_the_model_as_it_comes(cache: Path, tmp_path: Path) -> None:
    task = shapes_task(write_shapes(tmp_path / "shapes", count=8))
    settings = DenseSettings.model_validate({"steps": 0})
    model = dense_model(task, settings, task.fingerprint(), seed=0)
    built = task.build().state_dict()
    assert all(torch.equal(tensor, built[name]) for name, tensor in model.state_dict().items())
