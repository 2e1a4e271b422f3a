from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from autocomp.checkpoint.folder import (
    CONFIG,
    METRICS,
    WEIGHTS,
    checksum,
    download_mb,
    open_checkpoint,
    seal,
    write_config,
)
from autocomp.errors import CheckpointError, DataError
from autocomp.files import write_json
from autocomp.ship.verify import TOLERANCES, Comparison, Verification, depends_on_load, verify

QUALITY = {"bleu_4", "cider", "rouge_l", "mean_tokens"}


@pytest.fixture
def checkpoint(tiny_study, tmp_path, tiny):
    """The most compressed of the study's checkpoints."""
    return shutil.copytree(tiny_study / "trials" / "00003" / "checkpoint", tmp_path / "checkpoint")


def edit_metrics(checkpoint, **changes):
    """Record other metrics and a hash that fits, as a forger would."""
    metrics = json.loads((checkpoint / METRICS).read_text())
    write_json(checkpoint / METRICS, metrics | changes)
    seal(checkpoint)


def row(verification, metric):
    return next(one for one in verification.rows if one.metric == metric)


def sign(opened):
    """Write config.json anew for whatever the files hold now, as a forger would."""
    config = opened.config
    write_config(
        opened.artifact,
        opened.compressed(),
        config.task,
        config.target,
        config.seed,
        config.fingerprint,
        config.steps,
        config.dense_latency_ms,
    )
    seal(opened.directory)


def test_a_checkpoint_measures_as_recorded(checkpoint):
    verification = verify(checkpoint)
    assert verification.rebuilt == "same files"
    assert not [name for name in verification.differing if not depends_on_load(name)]
    assert {one.metric for one in verification.rows} == set(open_checkpoint(checkpoint).metrics)
    assert row(verification, "latency_own_ms").agrees is None
    assert row(verification, "decoder_step_ms").agrees is None
    assert row(verification, "decoder_step_ms").measured > 0
    assert row(verification, "latency_ratio").measured == pytest.approx(
        row(verification, "latency_ratio").recorded, rel=0.5
    )


def test_on_the_test_split_quality_is_measured_and_the_rest_compared(checkpoint):
    verification = verify(checkpoint, "test")
    assert all(row(verification, name).recorded is None for name in QUALITY)
    assert all(row(verification, name).measured is not None for name in QUALITY)
    assert all(row(verification, name).agrees is None for name in QUALITY)
    assert row(verification, "size_mb").agrees
    assert verification.split == "test"


def test_embellished_metrics_are_found(checkpoint):
    better = {"cider": 1.5, "size_mb": 0.1, "peak_rss_mb": 3.0, "macs": 17.0}
    edit_metrics(checkpoint, **better)
    verification = verify(checkpoint)
    assert set(verification.differing) >= better.keys()
    assert not verification.agrees
    assert verification.reproduces


def test_a_metric_that_cannot_be_had_here_is_no_disagreement(checkpoint):
    edit_metrics(checkpoint, meteor=0.3)
    verification = verify(checkpoint)
    assert row(verification, "meteor") == Comparison("meteor", 0.3, None, pytest.approx(1e-9))
    assert row(verification, "meteor").agrees is None


def test_files_of_another_model_are_found_though_their_checksums_fit(checkpoint):
    opened = open_checkpoint(checkpoint)
    path = checkpoint / "decoder.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("norm.weight"):
            array = numpy_helper.to_array(tensor)
            drawn = np.random.default_rng(0).normal(size=array.shape).astype(array.dtype)
            tensor.CopyFrom(numpy_helper.from_array(drawn, tensor.name))
    path.write_bytes(model.SerializeToString())
    sign(opened)
    verification = verify(checkpoint)
    assert verification.rebuilt == "different"
    assert not verification.agrees


def test_another_exporters_files_count_if_they_predict_the_same(checkpoint):
    opened = open_checkpoint(checkpoint)
    path = checkpoint / "decoder.onnx"
    model = onnx.load(path)
    model.producer_version = "another"
    path.write_bytes(model.SerializeToString())
    sign(opened)
    verification = verify(checkpoint)
    assert verification.rebuilt == "same predictions"
    assert verification.reproduces


def test_a_checkpoint_older_than_caption_py_still_verifies(checkpoint):
    """Its preprocessing.json names no threads, so not all of what is made anew is the same."""
    (checkpoint / "caption.py").unlink()
    settings = json.loads((checkpoint / "preprocessing.json").read_text())
    del settings["threads"]
    write_json(checkpoint / "preprocessing.json", settings)
    config = json.loads((checkpoint / CONFIG).read_text())
    del config["files"]["caption.py"]
    digest = hashlib.sha256((checkpoint / "preprocessing.json").read_bytes()).hexdigest()
    config["files"]["preprocessing.json"] = digest
    write_json(checkpoint / CONFIG, config | {"checksum": checksum(config)})
    seal(checkpoint)  # which writes it as short as it is fetched
    artifact = open_checkpoint(checkpoint).artifact
    edit_metrics(checkpoint, size_mb=artifact.size_mb, download_mb=download_mb(artifact))
    verification = verify(checkpoint)
    assert verification.rebuilt == "same predictions"
    assert not [name for name in verification.differing if not depends_on_load(name)]


def test_a_damaged_checkpoint_is_refused(checkpoint):
    path = checkpoint / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=WEIGHTS):
        verify(checkpoint)


def test_a_checkpoint_without_metrics_is_refused(checkpoint):
    write_json(checkpoint / METRICS, {})
    seal(checkpoint)
    with pytest.raises(CheckpointError, match="must hold what to compare with"):
        verify(checkpoint)


def test_an_unknown_split_is_refused(checkpoint):
    with pytest.raises(DataError, match="did you mean 'test'"):
        verify(checkpoint, "tets")


@pytest.mark.parametrize(
    ("recorded", "measured", "tolerance", "agrees"),
    [
        (1.0, 1.0, 0.0, True),
        (1.0, 1.0000001, 0.0, False),
        (0.5, 0.5 + 1e-12, 1e-9, True),
        (0.0, 1e-12, 1e-9, True),
        (0.5, 0.5001, 1e-9, False),
        (1.0, 1.14, 0.15, True),
        (1.0, 1.2, 0.15, False),
        (1.0, 9.0, None, None),
        (None, 1.0, 0.0, None),
        (1.0, None, 0.0, None),
        (1.0, float("nan"), 0.15, False),
    ],
)
def test_a_row_agrees_within_its_tolerance(recorded, measured, tolerance, agrees):
    comparison = Comparison("x", recorded, measured, tolerance)
    assert comparison.agrees is agrees
    verification = Verification("dev", (comparison,), "same files")
    assert verification.agrees is (agrees is not False)


def test_what_is_counted_must_be_exact():
    assert all(TOLERANCES[one] == 0 for one in ("size_mb", "download_mb", "params", "macs"))
