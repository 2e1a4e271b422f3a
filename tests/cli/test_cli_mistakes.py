"""Every mistake of a user ends in one clear message on standard error and exit code 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from autocomp.checkpoint.folder import open_checkpoint, seal, write_config
from autocomp.study.store import StudyStore

Cli = Callable[..., Result]
Change = Callable[[dict[str, Any]], object]


def mistake(result: Result) -> str:
    """The message of a command that must have refused to work."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("command", ["check", "search"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(None, "must be a readable space file", id="missing"),
        pytest.param("", "must hold a mapping, but the file is empty", id="empty"),
        pytest.param("task: [", "must be valid YAML, but", id="malformed"),
        pytest.param("- task", "must hold a mapping, but got list", id="list"),
        pytest.param("a: &x [*x]", "unknown key 'a'", id="recursive"),
    ],
)
def test_file(cli: Cli, tmp_path: Path, command: str, text: str | None, message: str) -> None:
    path = tmp_path / "space.yaml"
    if text is not None:
        path.write_text(text)
    assert message in mistake(cli(command, path))


def change_step(index: int, **fields: Any) -> Change:
    return lambda space: space["policy"]["steps"][index].update(fields)


def change(section: str, **fields: Any) -> Change:
    def update(space: dict[str, Any]) -> None:
        for part in section.split("."):
            space = space[part]
        space.update(fields)

    return update


MISTAKES = [
    pytest.param(
        lambda space: space.update(polcy={}),
        "unknown key 'polcy'; did you mean 'policy'?",
        id="unknown key",
    ),
    pytest.param(
        change_step(1, learning_rate=1),
        "policy.steps.1: unknown key 'learning_rate'",
        id="unknown key of a step",
    ),
    pytest.param(
        change("task.model", layers=2),
        "task.model: unknown key 'layers'",
        id="unknown key of the model",
    ),
    pytest.param(
        change_step(2, layers="decoder.layer.*"),
        "policy.steps.2.layers: must match a layer that quantize can act on, "
        "but 'decoder.layer.*' matches none; nearest: decoder.layers",
        id="pattern that matches nothing",
    ),
    pytest.param(
        lambda space: space["policy"]["steps"].insert(
            0, {"kind": "prune_channels", "layers": "encoder.backbone", "ratio": 1.5}
        ),
        "policy.steps.0.ratio: must be in [0, 1), but got 1.5",
        id="ratio",
    ),
    pytest.param(
        change("task.model", heads=5),
        "heads must divide d_model, but got heads=5, d_model=32",
        id="heads",
    ),
    pytest.param(
        change("task", data={"kind": "flickr8k", "root": "no/such/folder"}),
        "task.data.root: must be the folder of Flickr8k, but there is no no/such/folder",
        id="missing data",
    ),
    pytest.param(
        change("task", dense={"checkpoint": "nothing.safetensors"}),
        "nothing.safetensors: must be a safetensors file, but",
        id="missing dense model",
    ),
    pytest.param(
        change("task", dense={"stpes": 2}),
        "task.dense: unknown key 'stpes'; did you mean 'steps'? known keys: batch_norm, "
        "batch_size, checkpoint,",
        id="unknown key of the dense model",
    ),
    pytest.param(
        change("target", kind="tflite"),
        "target.kind: must be 'onnxruntime', but got 'tflite'",
        id="unknown target",
    ),
    pytest.param(
        change("target", threads=0),
        "target.threads: must be greater than or equal to 1",
        id="threads",
    ),
    pytest.param(
        lambda space: space["objectives"].update(speed="maximize"),
        "objectives: must be one of",
        id="unknown objective",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), MISTAKES)
@pytest.mark.parametrize("command", ["check", "search"])
def test_space(
    cli: Cli, tmp_path: Path, space: dict[str, Any], command: str, spoil: Change, message: str
) -> None:
    spoil(space)
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(space))
    options = ["--out", tmp_path / "out"] if command == "search" else []
    assert message in mistake(cli(command, path, *options))
    assert not (tmp_path / "out").exists(), "a mistake in the space must not leave a study behind"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--trials", "0"], "trials: must be at least 1, but got 0", id="no trials"),
        pytest.param(["--trials", "many"], "--trials", id="trials no number"),
        pytest.param(["--workers", "-1"], "--workers", id="negative workers"),
        pytest.param(["--no-such-option"], "No such option", id="unknown option"),
    ],
)
def test_options(
    cli: Cli, tmp_path: Path, space_file: Path, options: list[str], message: str
) -> None:
    result = cli("search", space_file, "--out", tmp_path / "out", *options)
    assert message in mistake(result)


def test_unwritable_out(cli: Cli, tmp_path: Path, space_file: Path) -> None:
    (tmp_path / "file").write_text("")
    result = cli("search", space_file, "--out", tmp_path / "file" / "study")
    assert "must be a folder that can be written" in mistake(result)


def policy_file(folder: Path, text: str | None) -> Path:
    """The path of a policy file that holds `text`, or that is not there."""
    path = folder / "policy.yaml"
    if text is not None:
        path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(None, "must be a readable policy file", id="missing"),
        pytest.param("steps: [{kind: prun}]", "steps.0.kind: must be", id="no policy"),
        pytest.param("steps: []", "policy.yaml: steps.0: must be a ", id="not in the space"),
    ],
)
def test_policies_to_start_with(
    cli: Cli, tmp_path: Path, space_file: Path, text: str | None, message: str
) -> None:
    file = policy_file(tmp_path, text)
    result = cli("search", space_file, "--out", tmp_path / "out", "--start", file)
    assert message in mistake(result)
    assert not (tmp_path / "out").exists()


def test_study_of_another_space(
    cli: Cli, tmp_path: Path, study: Path, space: dict[str, Any]
) -> None:
    space["task"]["model"]["ffn"] = 96
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(space))
    result = cli("search", path, "--trials", 4, "--workers", 0, "--out", study)
    assert "task.model.ffn must be the same as in this study, 64, but got 96" in mistake(result)


@pytest.mark.parametrize("command", ["status", "front"])
def test_no_study(cli: Cli, tmp_path: Path, command: str) -> None:
    assert "must be a study folder" in mistake(cli(command, tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--json", "--csv"], "--json or --csv, but got both", id="two formats"),
        pytest.param(["--x", "speed"], "must be one of", id="unknown metric"),
        pytest.param(["--x", "speed", "--no-plot"], "but got --no-plot", id="no plot to name it"),
        pytest.param(["--x", "cider", "--y", "cider"], "another metric than x", id="one metric"),
    ],
)
def test_front(cli: Cli, study: Path, options: list[str], message: str) -> None:
    assert message in mistake(cli("front", study, *options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param([], "must be given a trial or what is best", id="nothing"),
        pytest.param(["--trial", "0", "--best", "min size_mb"], "but got both", id="both"),
        pytest.param(["--trial", "77"], "trial 77 has no result", id="no such trial"),
        pytest.param(["--best", "min speed"], "best: must be one of", id="unknown metric"),
        pytest.param(["--best", "max size_mb"], "must be 'min size_mb'", id="wrong way"),
    ],
)
def test_export(cli: Cli, tmp_path: Path, study: Path, options: list[str], message: str) -> None:
    result = cli("export", study, "--out", tmp_path / "out", *options)
    assert message in mistake(result)
    assert not (tmp_path / "out").exists()


def test_export_to_what_is_there(cli: Cli, tmp_path: Path, study: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    for force in ([], ["--force"]):
        mistake(cli("export", study, "--trial", 0, "--out", tmp_path, *force))
    assert (tmp_path / "mine.txt").exists()


def truncate(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


def edit(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["dense_latency_ms"] *= 2
    (checkpoint / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("command", ["verify", "caption", "rebuild", "bench"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(truncate, "model.safetensors: must be as autocomp wrote it", id="truncated"),
        pytest.param(edit, "config.json: must be as autocomp wrote it, but it", id="edited"),
        pytest.param(shutil.rmtree, "must be a checkpoint folder", id="missing"),
        pytest.param(
            lambda folder: (folder / "tokenizer.json").unlink(),
            "tokenizer.json: must be there, but is missing",
            id="file missing",
        ),
        pytest.param(
            lambda folder: (folder / "config.json").write_text("{"),
            "config.json: must be JSON",
            id="not JSON",
        ),
    ],
)
def test_checkpoint(
    cli: Cli,
    tmp_path: Path,
    study: Path,
    command: str,
    spoil: Callable[[Path], object],
    message: str,
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(study / "dense", checkpoint)
    spoil(checkpoint)
    photos = [tmp_path / "photo.jpg"] if command == "caption" else []
    assert message in mistake(cli(command, checkpoint, *photos))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            ["--threads", "1,x"],
            "threads: must be whole numbers from 1 to 256, separated by commas, but got '1,x'",
            id="no number",
        ),
        pytest.param(
            ["--batch", "0"], "batch: must be whole numbers from 1 to 1024", id="no image"
        ),
        pytest.param(["--against", "nothing"], "nothing: must be a checkpoint", id="no reference"),
        pytest.param(
            ["--images", "none.jpg"], "images: none.jpg: must be readable, but", id="no photo"
        ),
        pytest.param(
            ["--images", __file__], "must be an image Pillow can read, but", id="not a photo"
        ),
    ],
)
def test_bench(cli: Cli, study: Path, options: list[str], message: str) -> None:
    assert message in mistake(cli("bench", study / "dense", *options))


def test_bench_without_the_data(cli: Cli, study: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(study / "dense", tmp_path / "checkpoint")
    dense = open_checkpoint(folder)
    elsewhere = {"kind": "flickr8k", "root": str(tmp_path / "gone"), "image_size": 32}
    task = dense.config.task | {"data": elsewhere}
    write_config(dense.artifact, dense.compressed(), task, dense.config.target, 0, "other", 3, 1.0)
    seal(folder)
    told = mistake(cli("bench", folder))
    assert told.startswith("images: must be given, for the photos of the dev split are not here: ")
    assert "there is no" in told


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        pytest.param(None, "must be a readable policy file", id="missing"),
        pytest.param("steps: 3", "steps: must be", id="no list"),
        pytest.param(
            "steps: [{kind: quantize, layers: '**', bits: 7}]",
            "steps.0.bits: must be one of 2, 3, 4, 5, 6, 8, 16, 32, but got 7",
            id="bits",
        ),
        pytest.param(
            "steps: [{kind: quantize, layers: nothing, bits: 8}]",
            "policy.steps.0.layers: must match a layer",
            id="pattern that matches nothing",
        ),
    ],
)
def test_policy(
    cli: Cli, tmp_path: Path, space_file: Path, policy: str | None, message: str
) -> None:
    folder = tmp_path / "folder"
    result = cli(
        "run", space_file, policy_file(tmp_path, policy), "--out", tmp_path / "out", "--dir", folder
    )
    assert message in mistake(result)
    assert not folder.exists()


def test_run_beside_the_dense_model_of_another_space(
    cli: Cli, tmp_path: Path, study: Path, space: dict[str, Any]
) -> None:
    space["task"]["dense"]["steps"] = 4
    path, policy = tmp_path / "other.yaml", tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(space))
    policy.write_text("steps: [{kind: quantize, layers: '**', bits: 8}]")
    result = cli("run", path, policy, "--out", tmp_path / "out", "--dir", study)
    assert "but was made with another task;" in mistake(result)


def test_run_in_a_folder_where_a_search_prepares_the_dense_model(
    cli: Cli, tmp_path: Path, space_file: Path
) -> None:
    policy, folder = tmp_path / "policy.yaml", tmp_path / "folder"
    policy.write_text("steps: [{kind: quantize, layers: '**', bits: 8}]")
    with closing(StudyStore(folder)) as store:
        store.lock()
        result = cli("run", space_file, policy, "--out", tmp_path / "out", "--dir", folder)
    assert "must be used by one search or run at a time" in mistake(result)
    assert not (folder / "dense").exists()


def test_unknown_kind_of_name(cli: Cli) -> None:
    assert "did you mean 'samplers'" in mistake(cli("list", "sampler"))


def test_unknown_command(cli: Cli) -> None:
    assert "No such command 'serch'" in mistake(cli("serch"))
