"""Every command on a study of a classifier."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from label_files import shapes_space, write_shapes
from PIL import Image
from typer.testing import Result

import autocomp
from autocomp.ship.load import Classifier
from autocomp.ship.verify import depends_on_load

Cli = Callable[..., Result]
pytestmark = pytest.mark.usefixtures("tiny")


def done(result: Result) -> str:
    assert result.exit_code == 0, result.stderr
    return str(result.stdout)


def verified(cli: Cli, *arguments: object) -> dict[str, dict[str, object]]:
    """The rows of a checkpoint that is what it says, but for its speed on a busy machine."""
    found = json.loads(cli("verify", *arguments, "--json").stdout)
    assert found["rebuilt"] == "same files"
    rows = {row["metric"]: row for row in found["metrics"]}
    assert all(depends_on_load(name) for name, row in rows.items() if row["agrees"] is False)
    return rows


@pytest.fixture(scope="module")
def exported(shapes_study: Path, tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Path:
    out = tmp_path_factory.mktemp("exported") / "classifier"
    done(cli("export", shapes_study, "--trial", 2, "--out", out))
    return out


def test_front_is_of_top_1_with_its_interval(shapes_study: Path, cli: Cli) -> None:
    table = done(cli("front", shapes_study, "--no-plot"))
    assert "top-1" in table
    found = json.loads(done(cli("front", shapes_study, "--no-plot", "--json")))
    assert found["objectives"]["top_1"] == "maximize"
    (member,) = [one for one in found["front"] if one["trial"] == 2]
    assert set(member["intervals"]["top_1"]) == {"dense", "control"}
    assert found["dense"]["metrics"]["top_1"] > 0.8


def test_verify_agrees_and_measures_test(exported: Path, cli: Cli) -> None:
    by_name = verified(cli, exported)
    assert by_name["top_1"]["agrees"]
    by_name = verified(cli, exported, "--split", "test")
    assert by_name.keys() >= {"top_1", "top_class_share", "model_ms"}


def test_rebuild_makes_the_graph_and_the_program(exported: Path, cli: Cli, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "fetched")
    for name in ("model.onnx", "classify.py"):
        (folder / name).unlink()
    assert "model.onnx, classify.py" in done(cli("rebuild", folder))
    assert (folder / "model.onnx").read_bytes() == (exported / "model.onnx").read_bytes()


def test_load_gives_a_classifier(exported: Path, shapes_study: Path) -> None:
    model = autocomp.load(exported)
    assert isinstance(model, Classifier)
    task = model.checkpoint.task
    raw = task.raw_inputs("dev", task.size("dev"))
    assert [model.classify(one) for one in raw] == [one[0] for one in model.predict_all(raw)]
    assert task.metrics(model.predict_all(raw), "dev")["top_1"] == model.metrics["top_1"]
    assert model.classify(Image.open(next((shapes_study.parent / "shapes/test/disc").iterdir())))


@pytest.mark.parametrize(
    ("command", "kind"), [("caption", "captioner"), ("classify", "classifier")]
)
def test_each_kind_has_its_command(
    command: str, kind: str, exported: Path, tiny_study: Path, cli: Cli
) -> None:
    folder = exported if command == "caption" else tiny_study / "trials/00002/checkpoint"
    result = cli(command, folder, "photo.jpg")
    assert result.exit_code == 2
    assert f"must hold a {kind}, but its task is" in result.stderr
    other = "classify" if command == "caption" else "caption"
    assert result.stderr.endswith(f"; try autocomp {other}\n")


def test_the_card_shows_classes(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    assert text.startswith("# Image classifier")
    assert "python classify.py photo.jpg" in text
    assert "| image | this model | dense | its class |" in text
    assert "| disc/" in text
    assert "caption" not in text


def test_the_report_shows_photos_and_classes(shapes_study: Path, cli: Cli, tmp_path: Path) -> None:
    from autocomp.report.gallery import gallery
    from autocomp.study.study import Study

    done(cli("report", shapes_study, "--out", tmp_path / "report.html"))
    found = gallery(Study.load(shapes_study))
    assert found["metric"] == "top_1"
    assert {one["references"][0] for one in found["photos"]} <= {"disc", "line", "square"}
    for said in found["trials"].values():
        assert len(said) == len(found["photos"])
        for photo, (word, score) in zip(found["photos"], said, strict=True):
            assert (word == photo["references"][0]) == score


def test_bench_times_a_classifier_by_part(exported: Path, shapes_study: Path, cli: Cli) -> None:
    found = json.loads(done(cli("bench", exported, "--against", shapes_study / "dense", "--json")))
    assert set(found["timings"][1]["parts_ms"]) == {"read_ms", "model_ms", "rest_ms"}


@pytest.mark.parametrize("command", ["check", "search"])
def test_a_dev_split_that_cannot_be_used_is_told_before_training(
    command: str, cli: Cli, tmp_path: Path
) -> None:
    root = write_shapes(tmp_path / "shapes", count=4)
    shutil.copytree(root / "test" / "disc", root / "test" / "blob")
    space = shapes_space(root)
    space["task"]["data"] |= {"dev_from": "test"}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    out = ["--out", tmp_path / "out"] if command == "search" else []
    result = cli(command, tmp_path / "space.yaml", *out)
    assert result.exit_code == 2
    assert "blob: must be a class of train, but is none" in result.stderr
    assert "dense model" not in result.stderr


def test_an_objective_that_the_task_does_not_measure_is_named(cli: Cli, tmp_path: Path) -> None:
    section = {"kind": "python", "factory": "bars:Bars", "dense": {"steps": 1}}
    space = {
        "task": section,
        "target": {"kind": "onnxruntime"},
        "objectives": {"acuracy": "maximize"},
        "policy": {"steps": [{"kind": "quantize", "layers": "**", "bits": {"choice": [8, 4]}}]},
    }
    (tmp_path / "bars.yaml").write_text(yaml.safe_dump(space))
    result = cli("check", tmp_path / "bars.yaml", "--trust", "--no-estimate")
    assert result.exit_code == 2
    assert "did you mean 'accuracy'" in result.stderr
