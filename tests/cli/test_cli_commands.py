"""Each command does what it says: from a space file to captions, on a study searched for real."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import Result

from autocomp.checkpoint.folder import seal
from autocomp.cli import catalogue
from autocomp.cli.catalogue import CATALOGUE
from autocomp.cli.spaces import TEMPLATE
from autocomp.policy import Policy
from autocomp.ship.verify import depends_on_load
from autocomp.study.store import StudyStore

Cli = Callable[..., Result]
REPOSITORY = Path(__file__).parents[2]


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def test_search_tells_results_and_progress_apart(study: Path) -> None:
    stdout = (study.parent / "stdout.txt").read_text()
    stderr = (study.parent / "stderr.txt").read_text()
    assert "front.json" in stdout
    assert "front.png" in stdout
    assert "dense model: step 3 of 3, loss " in stderr
    assert "trial 0: cider " in stderr
    assert "(4 of 4 trials, front " in stderr
    assert "trial 0: " not in stdout


def test_search_leaves_a_study(study: Path) -> None:
    for name in ("space.yaml", "study.json", "journal.log", "front.json", "front.csv", "front.png"):
        assert (study / name).is_file(), name
    assert sorted(path.name for path in (study / "trials").iterdir()) == [
        "00000", "00001", "00002", "00003",
    ]  # fmt: skip


def test_the_same_search_again_resumes(cli: Cli, study: Path) -> None:
    space_file = study.parent / "tiny.yaml"
    result = cli(
        "search", space_file, "--trials", 4, "--workers", 0, "--out", study, "--json", "--no-plot"
    )
    assert json.loads(done(result)) == json.loads((study / "front.json").read_text())
    assert "resumed with 4 of 4 trials" in result.stderr


def test_search_tries_a_policy_to_start_with(cli: Cli, study: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(study, tmp_path / "study")
    tried = [Policy.load(path) for path in sorted(copied.glob("trials/*/policy.yaml"))]
    steps = tried[-1].model_dump(mode="json")["steps"]
    given = [
        Policy.model_validate({"steps": [steps[0] | {"keep": keep}, steps[1], steps[2] | bits]})
        for keep, bits in [(1, {"bits": 8}), (1, {"bits": 32}), (2, {"bits": 8})]
    ]
    new = next(one for one in given if one not in tried)
    file = tmp_path / "mine.yaml"
    file.write_text(new.to_yaml())
    command = ["search", study.parent / "tiny.yaml", "--workers", 0, "--out", copied]
    command += ["--start", file, "--trials"]
    assert "room for 0 new policies in 4 trials, but 1 are given" in cli(*command, 4).stderr
    done(cli(*command, 5))
    assert Policy.load(copied / "trials/00004/policy.yaml") == new
    assert "start: trial 4 is this policy already" in cli(*command, 5).stderr


def test_quiet_says_nothing_but_the_result(cli: Cli, study: Path) -> None:
    for options in (["-q", "search"], ["search", "-q"]):
        result = cli(
            *options, study.parent / "tiny.yaml", "--trials", 4, "--workers", 0, "--out", study
        )
        assert done(result)
        assert result.stderr == ""


def test_status(cli: Cli, study: Path) -> None:
    found = json.loads(done(cli("status", study, "--json")))
    front = json.loads((study / "front.json").read_text())
    assert found["trials"] == {"complete": 4, "stopped": 0, "failed": 0, "open": 0}
    assert found["front_size"] == len(front["front"])
    assert found["hypervolume"] == front["hypervolume"]
    assert {"lower", "evaluate", "measure", "retrain"} <= found["seconds"].keys()
    assert found["problems"] == []
    assert "4 complete" in done(cli("status", study))


def test_status_gives_reasons(cli: Cli, tmp_path: Path, study: Path) -> None:
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    path = copy / "trials" / "00002" / "result.json"
    failed = json.loads(path.read_text()) | {"status": "failed", "reason": "out of memory"}
    path.write_text(json.dumps(failed))
    assert "out of memory" in done(cli("status", copy))
    (problem,) = json.loads(done(cli("status", copy, "--json")))["problems"]
    assert problem == {"trial": 2, "status": "failed", "reason": "out of memory"}


def test_front(cli: Cli, study: Path) -> None:
    found = json.loads(done(cli("front", study, "--json", "--no-plot")))
    assert found == json.loads((study / "front.json").read_text())
    rows = list(csv.DictReader(io.StringIO(done(cli("front", study, "--csv", "--no-plot")))))
    assert [int(row["trial"]) for row in rows] == [one["trial"] for one in found["front"]]
    assert found["control"]["intervals"]["cider"].keys() == {"dense"}
    table = done(cli("front", study, "--no-plot"))
    headings = ("dense", "CIDEr", "95% interval", "size (MB)", "latency (ms)")
    assert all(name in table for name in headings)


def test_front_of_all_has_every_complete_trial(cli: Cli, study: Path) -> None:
    front = {one["trial"] for one in json.loads((study / "front.json").read_text())["front"]}
    found = json.loads(done(cli("front", study, "--all", "--json", "--no-plot")))
    others = {one["trial"]: one for one in found["others"]}
    results = [json.loads(one.read_text()) for one in study.glob("trials/*/result.json")]
    complete = {one["number"] for one in results if one["status"] == "complete"}
    assert others
    assert not others.keys() & front
    assert others.keys() | front == complete
    assert all(one["intervals"]["cider"] for number, one in others.items() if number > 1)
    rows = list(csv.DictReader(io.StringIO(done(cli("front", study, "--all", "--csv")))))
    assert {int(row["trial"]): row["on_front"] for row in rows} == {
        number: "yes" if number in front else "no" for number in complete
    }
    table = done(cli("front", study, "--all", "--no-plot"))
    assert all(f"({number})" in table for number in others)


def test_front_draws(cli: Cli, tmp_path: Path, study: Path) -> None:
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    (copy / "front.png").unlink()
    done(cli("front", copy, "--x", "download_mb", "--y", "bleu_4"))
    assert not (copy / "front.png").exists()  # another plot does not take its place
    done(cli("front", copy))
    for name in ("front.png", "front-download_mb-bleu_4.png"):
        with Image.open(copy / name) as image:
            assert image.size[0] > 100


@pytest.fixture(scope="module")
def checkpoint(cli: Cli, study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model"
    assert str(out) in done(cli("export", study, "--best", "min size_mb", "--out", out))
    return out


def test_export_takes_the_best(cli: Cli, study: Path, checkpoint: Path) -> None:
    front = json.loads((study / "front.json").read_text())["front"]
    metrics = json.loads((checkpoint / "metrics.json").read_text())
    assert metrics["size_mb"] == min(one["metrics"]["size_mb"] for one in front)


def test_export_by_number(cli: Cli, study: Path, tmp_path: Path) -> None:
    printed = done(cli("export", study, "--trial", 0, "--out", tmp_path / "dense", "--json"))
    dense = json.loads((study / "front.json").read_text())["dense"]["metrics"]
    assert json.loads(printed) == {"checkpoint": str(tmp_path / "dense"), "metrics": dense}


def test_verify(cli: Cli, checkpoint: Path) -> None:
    result = cli("verify", checkpoint, "--json")
    found = json.loads(result.stdout)
    rows = {row["metric"]: row for row in found["metrics"]}
    assert rows["cider"]["agrees"] is True
    assert rows["size_mb"]["agrees"] is True
    assert found["rebuilt"] == "same files"
    assert all(depends_on_load(name) for name, row in rows.items() if row["agrees"] is False)
    assert result.exit_code == (0 if found["agrees"] else 1)


def test_bench(cli: Cli, checkpoint: Path, study: Path) -> None:
    command = ["bench", checkpoint, study / "dense", "--against", study / "dense"]
    result = cli(*command, "--threads", "1,2", "--batch", "1,3", "--json")
    found = json.loads(done(result))
    settings = [f"timing 2 checkpoints: threads {t}, batch {b}" for t in (1, 2) for b in (1, 3)]
    assert [line for line in result.stderr.splitlines() if "timing" in line] == settings
    assert found["against"] == str(study / "dense")
    keys = [(one["threads"], one["batch_size"], one["checkpoint"]) for one in found["timings"]]
    names = [str(study / "dense"), str(checkpoint)]
    assert keys == [(t, b, name) for t in (1, 2) for b in (1, 3) for name in names]
    steps = json.loads((study / "dense" / "config.json").read_text())["steps"]
    for one in found["timings"]:
        parts = one["parts_ms"]
        assert list(parts) == ["read_ms", "encoder_ms", "decoder_step_ms", "rest_ms"]
        whole = sum(parts.values()) + (steps - 1) * parts["decoder_step_ms"]
        assert whole == pytest.approx(one["example_ms"])
        assert 0 < one["example_ms"] <= one["example_p90_ms"]
        assert one["interval"][0] <= one["ratio"] <= one["interval"][1]
        assert one["examples_per_s"] == pytest.approx(1000 / one["example_ms"])
        assert one["peak_rss_mb"] > 20
    table = done(cli("bench", checkpoint))
    assert all(name in table for name in ("ratio", "encoder (ms)", "decoder step (ms)", "p90"))


def test_bench_reads_the_photos_it_is_given(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (2000, 1500)).save(photo)
    shares = []
    for images in ([], ["--images", photo]):
        (found,) = json.loads(done(cli("bench", checkpoint, *images, "--json")))["timings"]
        shares.append(found["parts_ms"]["read_ms"] / found["example_ms"])
    assert shares[0] < 0.5 < shares[1]


def test_verify_finds_a_wrong_record(cli: Cli, tmp_path: Path, checkpoint: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(checkpoint, copy)
    metrics = json.loads((copy / "metrics.json").read_text())
    (copy / "metrics.json").write_text(json.dumps(metrics | {"cider": metrics["cider"] + 0.1}))
    refused = cli("verify", copy)
    assert refused.exit_code == 2
    assert "metrics.json: must be as autocomp wrote it" in refused.stderr
    seal(copy)
    result = cli("verify", copy)
    assert result.exit_code == 1
    (line,) = [one for one in result.stdout.splitlines() if one.split()[:1] == ["cider"]]
    assert "DISAGREES" in line
    assert "nothing but speed" not in result.stdout


def test_verify_says_when_only_the_speed_differs(
    cli: Cli, tmp_path: Path, checkpoint: Path
) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "model")
    metrics = json.loads((copy / "metrics.json").read_text())
    slower = metrics | {"latency_ratio": 2 * metrics["latency_ratio"]}
    (copy / "metrics.json").write_text(json.dumps(slower))
    seal(copy)
    result = cli("verify", copy)
    assert result.exit_code == 1
    assert "in nothing but speed and memory: this may be another machine" in result.stdout


def test_caption(cli: Cli, tmp_path: Path, checkpoint: Path) -> None:
    rng = np.random.default_rng(0)
    photos = [tmp_path / "one.jpg", tmp_path / "two.png"]
    for photo in photos:
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(photo)
    lines = done(cli("caption", checkpoint, *photos)).splitlines()
    found = json.loads(done(cli("caption", checkpoint, *photos, "--json")))
    assert [one["photo"] for one in found] == [str(one) for one in photos]
    assert lines == [f"{one['photo']}: {one['caption']}" for one in found]


def test_caption_names_what_it_cannot_read(cli: Cli, tmp_path: Path, checkpoint: Path) -> None:
    good, bad, missing = (tmp_path / name for name in ("good.png", "bad.jpg", "missing.jpg"))
    Image.new("RGB", (32, 32)).save(good)
    bad.write_text("this is no picture")
    result = cli("caption", checkpoint, bad, missing, good)
    assert result.exit_code == 2
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == [str(good)]
    assert f"{bad}: must be an image" in result.stderr
    assert f"{missing}: must be readable" in result.stderr


def test_rebuild(cli: Cli, tmp_path: Path, checkpoint: Path) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    assert done(cli("rebuild", copy)) == "nothing is missing\n"
    for graph in copy.glob("*.onnx"):
        graph.unlink()
    assert (
        "encoder.onnx: must be there, but is missing; 'autocomp rebuild "
        in cli("verify", copy).stderr
    )
    found = json.loads(done(cli("rebuild", copy, "--json")))
    assert found == {"checkpoint": str(copy), "rebuilt": ["encoder.onnx", "decoder.onnx"]}
    for graph in copy.glob("*.onnx"):
        assert graph.read_bytes() == (checkpoint / graph.name).read_bytes()
    (copy / "caption.py").unlink()
    assert "rebuilt caption.py: the very bytes" in done(cli("rebuild", copy))


def test_run(cli: Cli, tmp_path: Path, space_file: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("steps: [{kind: quantize, layers: '**', bits: 8}]")
    out = tmp_path / "out"
    printed = done(
        cli("run", space_file, policy, "--out", out, "--dir", tmp_path / "dir", "--json")
    )
    found = json.loads(printed)
    assert found["metrics"] == json.loads((out / "metrics.json").read_text())
    assert found["metrics"]["size_mb"] < found["dense"]["size_mb"]
    assert cli("run", space_file, policy, "--out", out).exit_code == 2, "out is there already"


def test_run_beside_a_search(cli: Cli, study: Path, tmp_path: Path, space_file: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("steps: [{kind: quantize, layers: '**', bits: 8}]")
    dense = study / "dense" / "config.json"
    before = dense.stat().st_mtime_ns
    with closing(StudyStore(study)) as store:
        store.lock()
        done(cli("run", space_file, policy, "--out", tmp_path / "out", "--dir", study))
    assert dense.stat().st_mtime_ns == before


def test_sensitivity(cli: Cli, tmp_path: Path, space_file: Path) -> None:
    command = ["sensitivity", space_file, "--examples", "4", "--workers", "0", "--out", tmp_path]
    found = json.loads(done(cli(*command, "--json")))
    assert {one["value"] for one in found["readings"]} == {8}
    assert json.loads((tmp_path / "sensitivity.json").read_text()) == found
    (tmp_path / "sensitivity.png").unlink()
    printed = done(cli(*command))
    assert "decoder.embedding" in printed
    assert "8 bits" in printed
    assert "share of the dense model's CIDEr on 4 examples of dev, nothing retrained" in printed
    assert (tmp_path / "sensitivity.png").exists()


def test_check(cli: Cli, space_file: Path) -> None:
    result = cli("check", space_file, "--json", "--workers", 1)
    found = json.loads(done(result))
    assert found["parameters"] == {
        "steps.0.drop_layers.keep": {"int_range": [1, 2]},
        "steps.2.quantize.bits": {"choice": [32, 8]},
    }
    assert found["size"] == 4
    assert found["objectives"] == yaml.safe_load(space_file.read_text())["objectives"]
    assert found["estimate"]["trials"] == 4 + 2, "every policy, the dense model and the control"
    assert 0 < found["estimate"]["trial_s"] < 600
    hours = found["estimate"]["trial_s"] * 6 / 3600
    assert found["estimate"]["hours"] == pytest.approx(hours, rel=0.1)


def test_check_prints(cli: Cli, space_file: Path) -> None:
    printed = done(cli("check", space_file, "--no-estimate"))
    assert "{choice: [32, 8]}" in printed
    assert "2 parameters, 4 policies" in printed
    assert "estimate" not in printed


def test_init_writes_a_space_that_checks(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "autocomp search spaces/captioner.yaml --trials 200" in done(cli("init"))
    done(cli("check", "spaces/captioner.yaml", "--no-estimate"))
    assert "--force" in cli("init").stderr
    Path("spaces/captioner.yaml").write_text("")
    done(cli("init", "--force"))
    assert Path("spaces/captioner.yaml").read_text() == TEMPLATE.read_text()


def test_template_is_the_space_of_the_repository() -> None:
    ours = (REPOSITORY / "search_spaces" / "captioner.yaml").read_text()
    assert TEMPLATE.read_text() == ours.replace("search_spaces/", "spaces/")


def test_schema_accepts_our_spaces(cli: Cli, space: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(done(cli("schema")))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    paths = sorted((REPOSITORY / "search_spaces").rglob("*.yaml"))
    (own,) = [
        yaml.safe_load(block)
        for block in re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.S)
        if "kind: python" in block
    ]
    for document in [space, own, *(yaml.safe_load(path.read_text()) for path in paths)]:
        validator.validate(document)
    space["task"]["model"]["layers"] = 3
    assert not validator.is_valid(space)


def test_list_names_everything(cli: Cli) -> None:
    from autocomp.compress.depth import SELECTIONS
    from autocomp.compress.importance import CRITERIA
    from autocomp.compress.ranges import RANGES
    from autocomp.compress.transformer import UNIT_CRITERIA
    from autocomp.data import captions, labels
    from autocomp.models.backbones import BACKBONES
    from autocomp.models.cifar import CIFAR_CLASSIFIERS
    from autocomp.policy import STEPS
    from autocomp.space.metrics import METRICS
    from autocomp.study.samplers import SAMPLERS
    from autocomp.targets import TARGETS
    from autocomp.tasks.registry import TASKS

    found = json.loads(done(cli("list", "--json")))
    known = {
        "steps": STEPS,
        "criteria": CRITERIA,
        "unit_criteria": UNIT_CRITERIA,
        "ranges": RANGES,
        "selections": SELECTIONS,
        "samplers": SAMPLERS,
        "targets": TARGETS,
        "tasks": TASKS,
        "backbones": BACKBONES,
        "datasets": {**captions.DATASETS, **labels.DATASETS},
        "classifiers": CIFAR_CLASSIFIERS,
        "metrics": METRICS,
    }
    assert {kind: set(found[kind]) for kind in known} == {k: set(v) for k, v in known.items()}
    assert set(found) == set(CATALOGUE)


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (
            "prune_channels.ratio",
            "number >= 0 and < 1, or a mapping from modules to such values; must be given",
        ),
        ("drop_layers.keep", "whole number >= 0; must be given"),
        ("retrain.schedule", "cosine | linear | constant; default cosine"),
        ("retrain.train", "text, or a list of patterns; default **"),
        ("quantize.exclude", "text, or a list of patterns; default none"),
    ],
)
def test_list_says_what_a_key_takes(key: str, line: str) -> None:
    assert CATALOGUE["keys"]()[key] == line


@pytest.mark.parametrize("kind", CATALOGUE)
def test_list_has_a_line_about_each(cli: Cli, kind: str) -> None:
    lines = CATALOGUE[kind]()
    assert all(line and "\n" not in line for line in lines.values())
    printed = done(cli("list", kind)).splitlines()
    assert len(printed) == len(lines) + 1
    assert not any(line.endswith(" ") for line in printed)
    assert set(catalogue.LINES.get(kind, lines)) == set(lines)
