"""What `config.json` tells of tensors is short, comes back in its order, and is never trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from label_files import shapes_section, shapes_task, write_shapes
from pydantic import TypeAdapter, ValidationError

from autocomp.checkpoint.folder import download_mb, open_packed, write_config, write_model
from autocomp.checkpoint.folding import MOST_CHARACTERS, StoredTensors, fold, unfold
from autocomp.checkpoint.packing import StoredTensor
from autocomp.compress.formats import Compressed, LayerFormat
from autocomp.compress.grids import FixedFormat
from autocomp.compress.quantize import quantize_
from autocomp.models.reshape import tensors
from autocomp.policy import Policy, Quantize
from autocomp.targets import TargetSettings

TOLD = TypeAdapter(StoredTensors)
PLAIN = StoredTensor(shape=(4,))
CODED = StoredTensor(shape=(4, 32), format=LayerFormat(bits=4, group_size=16, affine=True))
FIXED = StoredTensor(
    shape=(4,), fixed=FixedFormat(method="log", bits=6, overflow=0.1), computed_bits=8
)
MODELS = {
    "one tensor": {"weight": CODED},
    "layers that are alike": {f"layers.{i}.{n}": PLAIN for i in range(3) for n in ("weight", "b")},
    "layers that are not": {"layers.0.weight": CODED, "layers.1.weight": FIXED},
    "alike, but apart": {"a.weight": PLAIN, "b.weight": CODED, "c.weight": PLAIN},
    "alike in another order": {"a.x": PLAIN, "a.y": CODED, "b.y": CODED, "b.x": PLAIN},
    "a tensor beside modules": {"scale": PLAIN, "formats.weight": FIXED, "modules.weight": CODED},
}


@pytest.mark.parametrize("stored", MODELS.values(), ids=MODELS)
def test_tensors_come_back_in_their_order(stored: dict[str, StoredTensor]) -> None:
    again = TOLD.validate_json(TOLD.dump_json(stored))
    assert list(again.items()) == list(stored.items())


def test_formats_and_neighbours_that_are_alike_are_told_once() -> None:
    stored = {"layers.0.weight": CODED, "layers.0.bias": PLAIN, "layers.1.weight": CODED}
    told = fold(stored | {"layers.1.bias": PLAIN, "norm.weight": PLAIN, "norm.bias": PLAIN})
    assert told["modules"] == {
        "layers": {"0.1": {"weight": [[4, 32], 0], "bias": [[4], 1]}},
        "norm": {"weight.bias": [[4], 1]},
    }
    assert len(told["formats"]) == 2
    assert told["formats"][1] == {}


def test_tensors_of_an_older_checkpoint_are_read() -> None:
    written = {"formats": {"shape": [4], "format": None}, "a.weight": CODED.model_dump()}
    assert TOLD.validate_python(written) == {"formats": PLAIN, "a.weight": CODED}


@pytest.mark.parametrize(
    "modules",
    [
        None,
        [],
        "weight",
        {"weight": 4},
        {"weight": [[4]]},
        {"weight": [[4], 0, 0]},
        {"weight": [[4], 3]},
        {"weight": [[4], -1]},
        {"weight": [[4], 1]},
        {"weight": [[-4], 0]},
        {"weight": ["4", 0]},
        {"weight": [[4], 2]},
        {"weight": [9 * [1], 0]},
    ],
    ids=str,
)
def test_what_is_no_tensor_is_refused(modules: Any) -> None:
    written = {"formats": [{}, 7, {"format": {"bits": 4}}], "modules": modules}
    with pytest.raises(ValidationError):
        TOLD.validate_python(written)


def bomb(names: str, depth: int) -> Any:
    at: Any = [[4], 0]
    for _ in range(depth):
        at = {names: at}
    return {"formats": [{}], "modules": at}


@pytest.mark.parametrize(
    "written",
    [
        bomb("a.b", 900),
        bomb("a.a", 900),
        bomb(".".join(map(str, range(3000))), 3),
        {"formats": [{}], "modules": {"a" * 10**6: {"b." * 10**6: [[4], 0]}}},
        {"formats": [{}], "modules": {"a.b": {"a.b": bomb("a.b", 60)["modules"] | {"c": {}}}}},
    ],
    ids=["deep", "the same name", "wide", "long", "empty"],
)
def test_a_short_file_cannot_stand_for_much(written: Any) -> None:
    with pytest.raises(ValueError, match=f"{MOST_CHARACTERS} characters"):
        unfold(written)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.usefixtures("tiny")
def test_a_download_is_little_more_than_its_bits(bits: int, tmp_path: Path) -> None:
    """ResNet-20 has 270,000 weights."""
    task = shapes_task(write_shapes(tmp_path / "shapes", count=4))
    compressed = Compressed(task.build().eval())
    quantize_(compressed, Quantize(layers=("**",), bits=bits))
    artifact = write_model(tmp_path, task, TargetSettings(), compressed, Policy())
    section = shapes_section(tmp_path / "shapes")
    write_config(artifact, compressed, section, TargetSettings(), 0, "0" * 64, 1, 1.0)
    opened = open_packed(tmp_path)
    expected = sum(one.stored_bytes for one in opened.config.tensors.values()) / 1e6
    assert expected < download_mb(artifact) < 1.05 * expected
    assert list(opened.config.tensors) == list(tensors(compressed.module))
