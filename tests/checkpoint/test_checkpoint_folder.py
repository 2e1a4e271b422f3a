from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from autocomp.checkpoint.card import Card, write_card
from autocomp.checkpoint.folder import (
    CARD,
    CONFIG,
    METRICS,
    POLICY,
    WEIGHTS,
    checksum,
    download_mb,
    open_checkpoint,
    open_packed,
    seal,
    write_config,
    write_model,
)
from autocomp.checkpoint.folding import unfold
from autocomp.errors import CheckpointError, UserError
from autocomp.files import write_json
from autocomp.models.reshape import tensors
from autocomp.targets import load_target

HASHED = [
    "encoder.onnx",
    "decoder.onnx",
    "tokenizer.json",
    "preprocessing.json",
    WEIGHTS,
    POLICY,
    METRICS,
    CARD,
]
BAD_NAMES = [
    "../encoder.onnx",
    "..",
    ".",
    "",
    "/etc/passwd",
    "a/b.onnx",
    "a\\b.onnx",
    ".hidden",
    "encoder.onnx\n",
    "encoder\0.onnx",
    "C:encoder.onnx",
    "-rf",
]


@pytest.fixture
def folder(tiny_study, tmp_path):
    """A checkpoint with pruned channels, a dropped layer and 4-bit or 8-bit weights."""
    return shutil.copytree(tiny_study / "trials" / "00003" / "checkpoint", tmp_path / "checkpoint")


@pytest.fixture
def config(folder):
    return json.loads((folder / CONFIG).read_text())


def sign(folder, config):
    """Write a configuration with a checksum that fits, as a forger would."""
    write_json(folder / CONFIG, config | {"checksum": checksum(config)})


def refused(folder):
    """The one line with which the folder is refused."""
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


def outputs(run, images):
    """What both graphs give for some images: every array, by graph and name."""
    state = run("encoder", images=images)
    token = np.full((len(images), 1), 1, dtype=np.int64)
    found = run("decoder", token=token, position=np.array([0]), **state)
    return {**{f"encoder.{k}": v for k, v in state.items()}, **found}


def test_what_is_written_is_read_back_bit_for_bit(folder, tmp_path):
    first = open_checkpoint(folder)
    config, compressed = first.config, first.compressed()
    assert compressed.quantized
    again = tmp_path / "again"
    artifact = write_model(again, first.task, config.target, compressed, first.policy)
    write_config(artifact, compressed, config.task, config.target, 3, "data", 7, 2.5)
    counted = download_mb(artifact)
    write_json(again / METRICS, {"download_mb": counted})
    card = Card(config.task, first.policy, config.target, (), {"download_mb": counted}, {}, 1)
    write_card(again, card)
    assert CARD in refused(again) or METRICS in refused(again)
    seal(again)
    second = open_checkpoint(again)
    assert (second.config.seed, second.config.steps, second.config.dense_latency_ms) == (3, 7, 2.5)
    assert second.config.fingerprint == "data"
    assert second.policy == first.policy
    assert second.metrics == {"download_mb": download_mb(second.artifact)}
    rebuilt = second.compressed()
    before, after = tensors(compressed.module), tensors(rebuilt.module)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert compressed.quantized.keys() == rebuilt.quantized.keys()
    for name, tensor in compressed.quantized.items():
        assert torch.equal(tensor.codes, rebuilt.quantized[name].codes)
        assert torch.equal(tensor.scales, rebuilt.quantized[name].scales)


def test_the_artefact_rebuilt_from_the_packed_weights_computes_the_same_bits(folder, tmp_path):
    shipped = open_checkpoint(folder)
    artifact = write_model(
        tmp_path / "again",
        shipped.task,
        shipped.config.target,
        shipped.compressed(),
        shipped.policy,
    )
    run = load_target("onnxruntime").open(artifact)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    expected, found = outputs(shipped.run, images), outputs(run, images)
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    for name in [*artifact.graphs.values(), *artifact.assets, WEIGHTS]:
        assert (artifact.directory / name).read_bytes() == (folder / name).read_bytes()


def test_what_must_be_fetched_is_counted(folder):
    names = [WEIGHTS, CONFIG, "tokenizer.json", "preprocessing.json"]
    expected = sum((folder / name).stat().st_size for name in names) / 1e6
    assert download_mb(open_checkpoint(folder).artifact) == expected


def test_metrics_are_what_the_study_measured(folder):
    recorded = json.loads((folder / METRICS).read_text())
    assert open_checkpoint(folder).metrics == recorded
    assert recorded["download_mb"] == download_mb(open_checkpoint(folder).artifact)


def test_embellished_metrics_are_refused(folder):
    recorded = json.loads((folder / METRICS).read_text())
    write_json(folder / METRICS, recorded | {"cider": 1.5})
    assert f"{folder / METRICS}: must be as autocomp wrote it" in refused(folder)


def test_an_embellished_card_is_refused(folder):
    card = (folder / CARD).read_text()
    (folder / CARD).write_text(card + "Better than any other.\n")
    assert f"{folder / CARD}: must be as autocomp wrote it" in refused(folder)


def test_an_edited_configuration_is_not_sealed(folder, config):
    write_json(folder / CONFIG, config | {"steps": 99})
    with pytest.raises(CheckpointError, match="it was edited"):
        seal(folder)


@pytest.mark.parametrize("text", ["[1]", "{", '{"cider": "high"}'], ids=["list", "half", "words"])
def test_unreadable_metrics_are_refused(folder, text):
    (folder / METRICS).write_text(text)
    seal(folder)
    with pytest.raises(CheckpointError, match=METRICS):
        _ = open_checkpoint(folder).metrics


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"[", b"[]", b"steps: 3", None],
    ids=["binary", "half", "list", "no steps", "none"],
)
def test_an_unreadable_policy_is_refused(folder, content):
    (folder / POLICY).unlink()
    if content is not None:
        (folder / POLICY).write_bytes(content)
    with pytest.raises(UserError, match=POLICY) as caught:
        _ = open_packed(folder).policy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("how", "shape", "reason"),
    [
        ({"bits": 4}, [3, 0], r"must have rows of weights, but its shape is \(3, 0\)"),
        ({"bits": 4, "group_size": 32, "per_tensor": True}, [1, 100], "but got 32"),
    ],
    ids=["no columns", "two granularities"],
)
def test_formats_that_hold_no_weights_are_refused(folder, config, how, shape, reason):
    tensors = unfold(config["tensors"])
    tensors["decoder.layers.1.ffn.up.weight"] = {"shape": shape, "format": how}
    sign(folder, config | {"tensors": tensors})
    with pytest.raises(CheckpointError, match=reason):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", [*HASHED, "caption.py"])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "edited", "removed"])
def test_a_damaged_file_is_named(folder, name, damage):
    path = folder / name
    content = path.read_bytes()
    middle = len(content) // 2
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(
            {
                "truncated": content[:-1],
                "emptied": b"",
                "edited": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            }[damage]
        )
    assert str(path) in refused(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 99),
        ("steps", 99),
        ("dense_latency_ms", 0.001),
        ("target", {"kind": "onnxruntime", "threads": 8, "batch_size": 1}),
        ("checksum", ""),
        ("checksum", "0" * 12),
    ],
)
def test_an_edited_configuration_is_refused(folder, config, key, value):
    write_json(folder / CONFIG, config | {key: value})
    assert "it was edited" in refused(folder)


def test_tensors_in_another_order_are_refused(folder, config):
    tensors = config["tensors"]
    modules = dict(reversed(tensors["modules"].items()))
    write_json(folder / CONFIG, config | {"tensors": tensors | {"modules": modules}})
    assert "it was edited" in refused(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 100_000, b'{"format": 1}'],
    ids=["empty", "half", "list", "null", "binary", "deep", "bare"],
)
def test_a_configuration_that_is_none_is_refused(folder, content):
    (folder / CONFIG).write_bytes(content)
    with pytest.raises(CheckpointError, match=CONFIG):
        open_checkpoint(folder)


def test_a_configuration_of_another_format_is_refused(folder, config):
    write_json(folder / CONFIG, config | {"format": 2})
    assert "format" in refused(folder)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_graph_outside_the_folder_is_refused(folder, config, name):
    write_json(folder / CONFIG, config | {"graphs": {**config["graphs"], "encoder": name}})
    assert "graphs.encoder" in refused(folder)


@pytest.mark.parametrize("name", [one for one in BAD_NAMES if one.isprintable()])
@pytest.mark.parametrize("key", ["assets", "files"])
def test_any_other_file_outside_the_folder_is_refused(folder, config, key, name):
    forged = [name] if key == "assets" else {**config["files"], name: "0" * 64}
    write_json(folder / CONFIG, config | {key: forged})
    assert key in refused(folder)


@pytest.mark.parametrize("name", HASHED)
def test_a_file_that_no_checksum_covers_is_refused(folder, config, name):
    del config["files"][name]
    sign(folder, config)
    assert f"must name {name}" in refused(folder)


def test_shapes_that_are_not_the_weights_are_refused(folder, config):
    config["tensors"] = unfold(config["tensors"])
    config["tensors"]["decoder.norm.weight"]["shape"] = [10**12]
    sign(folder, config)
    with pytest.raises(CheckpointError, match="must hold the tensors"):
        open_checkpoint(folder).compressed()


@pytest.mark.parametrize("change", ["added", "removed"])
def test_tensors_of_another_model_are_refused(folder, config, change):
    if change == "removed":
        config["tensors"] = unfold(config["tensors"])
        del config["tensors"]["decoder.norm.weight"]
    else:
        config["task"]["model"]["encoder_layers"] = 1
    sign(folder, config)
    if change == "removed":
        with pytest.raises(CheckpointError, match=r"must hold the tensors config\.json describes"):
            open_checkpoint(folder).compressed()
    else:  # layers that no tensor belongs to count as dropped
        assert not open_checkpoint(folder).compressed().module.encoder.layers


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"kind": "captionin"}, "captioning"),
        ({"kind": "python", "factory": "os:system"}, "dense: must be given"),
        ({}, "kind"),
    ],
    ids=["misspelt", "half", "none"],
)
def test_a_task_of_an_unknown_kind_is_refused(folder, config, section, reason):
    sign(folder, config | {"task": section})
    with pytest.raises(CheckpointError, match=reason):
        _ = open_checkpoint(folder).task


def test_code_that_a_checkpoint_names_is_not_run(folder, config):
    task = {"kind": "python", "factory": "os:system", "dense": {"steps": 1}}
    sign(folder, config | {"task": task | {"settings": {"command": "exit 1"}}})
    with pytest.raises(UserError, match="must be trusted to be run"):
        _ = open_checkpoint(folder).task


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "file":
        path.touch()
    elif kind == "empty":
        path.mkdir()
    assert str(path) in refused(path)
