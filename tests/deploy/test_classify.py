"""`classify.py` where there is no autocomp: it says what `autocomp classify` says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from deployed import Python, damaged
from typer.testing import CliRunner, Result

from autocomp.cli.main import app
from autocomp.deploy.classify import MOST, Classifier, likeliest, named
from autocomp.deploy.photos import Unusable
from autocomp.ship.load import load


@pytest.fixture(scope="module")
def model(shapes_study: Path) -> Path:
    """A checkpoint of smaller images, pruned channels and few bits."""
    return shapes_study / "trials" / "00002" / "checkpoint"


@pytest.fixture(scope="module")
def photos(shapes_study: Path) -> list[Path]:
    return sorted((shapes_study.parent / "shapes" / "test").glob("*/00[01].png"))


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "json"])
def test_it_prints_what_autocomp_prints(
    python: Python, model: Path, photos: list[Path], options: tuple[str, ...], tmp_path: Path
) -> None:
    given = [*photos, tmp_path / "gone.jpg"]
    expected, found = (
        cli("classify", model, *given, *options),
        python(model / "classify.py", *given, *options),
    )
    assert (found.returncode, found.stdout) == (2, expected.stdout)
    assert found.stderr == expected.stderr
    assert "gone.jpg: must be readable, but No such file" in found.stderr
    if options:
        answers = json.loads(found.stdout)
        assert [one["photo"] for one in answers] == [str(one) for one in photos]
        for one in answers:
            assert one["class"] == max(one["probabilities"], key=one["probabilities"].get)
            assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_it_is_a_module_too(python: Python, model: Path, photos: list[Path]) -> None:
    program = f"""
from classify import Classifier
classifier = Classifier()
print(classifier.classify({str(photos[0])!r}))
print(classifier.classify(open({str(photos[0])!r}, "rb").read()))
"""
    done = python("-c", program, cwd=model)
    assert done.stdout.split() == [load(model).classify(photos[0])] * 2, done.stderr


def test_inference_opens_what_size_mb_counts(
    model: Path, photos: list[Path], tmp_path: Path
) -> None:
    for name in ("model.onnx", "preprocessing.json"):
        shutil.copy(model / name, tmp_path)
    assert Classifier(tmp_path).probabilities(photos[0]) == load(model).probabilities(photos[0])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.onnx", None, "must be an ONNX file, but there is none"),
        ("preprocessing.json", b"{}", "must be as autocomp wrote it, but lacks 'classes'"),
        ("preprocessing.json", b'{"classes": []}', "but lacks 'image_size'"),
        ("preprocessing.json", b"[]", "must be as autocomp wrote it, but lacks "),
    ],
    ids=["no graph", "nothing", "no size", "a list"],
)
def test_a_damaged_folder_is_one_line(
    model: Path, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    folder = damaged(model, tmp_path, name, content)
    with pytest.raises(Unusable, match=str(folder)) as caught:
        Classifier(folder)
    assert said in str(caught.value)


def test_the_likeliest_come_first_and_share_one() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32) * 50
    rows = likeliest(logits)
    assert rows.shape == (4, MOST)
    for own, row in zip(logits, rows, strict=True):
        assert list(own[row]) == sorted(own, reverse=True)[:MOST]
        shares = named(own, tuple("abcdefghi"))
        assert list(shares) == [chr(ord("a") + index) for index in row]
        assert 0 < sum(shares.values()) <= 1 + 1e-9
    assert likeliest(logits[:, :3]).shape == (4, 3)
