"""`caption.py` where there is no autocomp: it says what `autocomp caption` says, of every photo."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
from deployed import Python, damaged
from PIL import Image
from tiny_models import tiny_task
from torch import nn
from typer.testing import CliRunner, Result

from autocomp.checkpoint.folder import (
    LATE,
    open_checkpoint,
    seal,
    write_config,
    write_model,
)
from autocomp.checkpoint.programs import PROGRAMS
from autocomp.cli.main import app
from autocomp.compress.formats import Compressed
from autocomp.compress.quantize import quantize_
from autocomp.deploy import caption
from autocomp.deploy.photos import Unusable
from autocomp.deploy.program import program
from autocomp.policy import Policy, Quantize, Retrain
from autocomp.retrain.loop import retrain_
from autocomp.ship.load import load
from autocomp.targets import TargetSettings
from autocomp.tasks.registry import TASKS

ABSENT = ("autocomp", "torch", "ray", "pydantic", "onnx", "yaml", "safetensors", "google.protobuf")


@pytest.fixture(scope="module")
def model(tiny_study: Path) -> Path:
    """A checkpoint with pruned channels and 8-bit weights, convolutions too."""
    return tiny_study / "trials" / "00002" / "checkpoint"


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A captioner trained for so long that what it says hangs on the photo, on any machine."""
    task = tiny_task()
    captioner = task.build()
    step = Retrain(steps=240, lr=5e-3, batch_size=16, precision="fp32")
    retrain_(captioner, step, task, seed=0)
    return captioner.eval()


@pytest.fixture(scope="module")
def checkpoint(
    request: pytest.FixtureRequest,
    trained: nn.Module,
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Of that captioner, in 8 bits on two threads, with as wide a beam as the test asks for."""
    folder = tmp_path_factory.mktemp("trained")
    task = tiny_task(generation={"beam": request.param, "max_length": 16})
    compressed, target = Compressed(copy.deepcopy(trained)), TargetSettings(threads=2)
    quantize_(compressed, Quantize(layers=("decoder",), bits=8))
    artifact = write_model(folder, task, target, compressed, Policy())
    section = task.settings.model_dump(mode="json")
    write_config(artifact, compressed, section, target, 0, "", 1, 1.0)
    for name in LATE:
        shutil.copy(model / name, folder)
    seal(folder)
    return folder


@pytest.fixture
def photos(tiny: None, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of every kind that the reader treats in its own way."""
    folder = tmp_path_factory.mktemp("photos")
    drawn = [Image.fromarray(one).resize((64, 48)) for one in tiny_task().inputs("test", 0, 8)]
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = Image.linear_gradient("L").resize((64, 48))
    gray = np.asarray(drawn[0].convert("L"), np.uint16)
    drawn[1].save(folder / "plain.jpg")
    drawn[1].save(folder / "turned.jpg", exif=exif)
    drawn[2].save(folder / "palette.gif")
    drawn[3].convert("CMYK").save(folder / "cmyk.jpg")
    drawn[4].convert("L").save(folder / "gray.jpg")
    Image.fromarray(gray * 257).save(folder / "16 bit.png")
    Image.merge("RGBA", (*drawn[5].split(), alpha)).save(folder / "alpha.png")
    Image.merge("LA", (drawn[6].convert("L"), alpha)).save(folder / "gray alpha.png")
    return sorted(folder.iterdir())


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.mark.parametrize("package", ABSENT)
def test_there_is_nothing_else_to_import(python: Python, package: str) -> None:
    done = python("-c", f"import {package}")
    assert "ModuleNotFoundError" in done.stderr


def test_every_checkpoint_holds_what_autocomp_itself_runs(model: Path) -> None:
    assert (model / "caption.py").read_bytes() == program(Path(caption.__file__))
    assert "caption.py" in open_checkpoint(model).config.files
    assert set(PROGRAMS) <= set(TASKS)


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "json"])
@pytest.mark.parametrize("checkpoint", [1, 3], ids=["greedy", "beams"], indirect=True)
def test_it_prints_what_autocomp_prints(
    python: Python, photos: list[Path], checkpoint: Path, options: tuple[str, ...]
) -> None:
    expected = cli("caption", checkpoint, *photos, *options)
    found = python(checkpoint / "caption.py", *photos, *options)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == expected.stdout
    captioner = caption.Captioner(checkpoint)
    assert len({captioner.caption(photo) for photo in photos}) > 4, "it must tell photos apart"


def test_it_leaves_nothing_behind_and_tells_nobody(
    python: Python, model: Path, photos: list[Path], tmp_path: Path
) -> None:
    code = f"import os; os.environ['HOME'] = {str(tmp_path)!r}; import runpy; " + (
        f"runpy.run_path({str(model / 'caption.py')!r}, run_name='x')['Captioner']().caption("
        f"{str(photos[0])!r})"
    )
    assert python("-c", code).returncode == 0
    # ONNX Runtime's telemetry keeps an identity and what it could not send yet in there
    assert list(tmp_path.iterdir()) == []


def test_it_is_a_module_too(python: Python, model: Path, photos: list[Path]) -> None:
    program = f"""
from caption import Captioner, Unusable
captioner = Captioner()
print(captioner.caption({str(photos[0])!r}))
print(captioner.caption(open({str(photos[0])!r}, "rb").read()))
try:
    captioner.caption("gone.jpg")
except Unusable as reason:
    print(reason)
"""
    done = python("-c", program, cwd=model)
    expected = load(model).caption(photos[0])
    assert done.stdout.splitlines() == [
        expected,
        expected,
        "gone.jpg: must be readable, but No such file or directory",
    ]


def test_what_cannot_be_read_comes_last_as_in_autocomp(
    python: Python, model: Path, photos: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "cut.jpg").write_bytes(photos[2].read_bytes()[:200])
    named = [
        tmp_path / "notes.txt",
        tmp_path / "gone.jpg",
        photos[0],
        tmp_path / "cut.jpg",
        tmp_path,
    ]
    found, expected = python(model / "caption.py", *named), cli("caption", model, *named)
    assert (found.returncode, found.stdout) == (2, expected.stdout)
    assert found.stderr == expected.stderr
    assert len(found.stderr.splitlines()) == 4


DAMAGE = {
    "no graph": ("decoder.onnx", None, "must be an ONNX file, but there is none"),
    "half a graph": ("encoder.onnx", b"\x08\x07\x12", "must be a whole ONNX file, "),
    "no words": ("tokenizer.json", None, "must be readable, but No such file or directory"),
    "half the words": ("tokenizer.json", b'{"words": [', "must be JSON, but "),
    "other settings": ("preprocessing.json", b"{}", "must be as autocomp wrote it, but lacks "),
    "a list": ("preprocessing.json", b"[]", "must be as autocomp wrote it, but lacks "),
}


@pytest.mark.parametrize(("name", "content", "said"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_one_line(
    model: Path, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    folder = damaged(model, tmp_path, name, content)
    with pytest.raises(Unusable) as caught:
        caption.Captioner(folder)
    assert said in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_folder_ends_with_code_2(python: Python, model: Path, tmp_path: Path) -> None:
    shutil.copy(model / "caption.py", tmp_path)
    done = python(tmp_path / "caption.py", "photo.jpg")
    assert done.returncode == 2
    assert done.stderr.endswith(
        "preprocessing.json: must be readable, but No such file or directory\n"
    )
    assert len(done.stderr.splitlines()) == 1
    assert python(tmp_path / "caption.py").returncode == 2


def test_inference_opens_what_size_mb_counts(
    model: Path, photos: list[Path], tmp_path: Path
) -> None:
    for path in open_checkpoint(model).artifact.files:
        shutil.copy(path, tmp_path)
    assert caption.Captioner(tmp_path).caption(photos[0]) == load(model).caption(photos[0])
