from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

import autocomp
from autocomp.checkpoint.folder import open_checkpoint
from autocomp.errors import CheckpointError, DataError
from autocomp.ship.load import Captioner, load


@pytest.fixture(scope="module")
def captioner(tiny_study):
    return load(tiny_study / "trials" / "00002" / "checkpoint")


@pytest.fixture
def pictures(captioner, tiny):
    """PNG files of the test split, which the model has never seen."""
    return captioner.checkpoint.task.raw_inputs("test", 6)


def test_load_is_part_of_the_library(tiny_study):
    assert isinstance(autocomp.load(tiny_study / "trials" / "00000" / "checkpoint"), Captioner)


def test_bytes_path_and_open_image_get_the_same_caption(captioner, pictures, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(pictures[0])
    expected = captioner.caption(pictures[0])
    assert expected
    assert captioner.caption(path) == expected
    assert captioner.caption(str(path)) == expected
    assert captioner.caption(Image.open(path)) == expected
    assert captioner.predict(pictures[0]) == expected


def test_many_pictures_get_the_captions_they_get_one_by_one(captioner, pictures):
    assert captioner.captions(pictures) == [captioner.caption(one) for one in pictures]
    assert captioner.captions([]) == []


def test_the_dev_split_is_captioned_as_it_was_measured(captioner, tiny):
    task = captioner.checkpoint.task
    captions = captioner.captions(task.raw_inputs("dev", task.size("dev")))
    scores = task.metrics(captions, "dev")
    assert scores == {name: captioner.metrics[name] for name in scores}


def test_an_open_photo_is_turned_upright_as_its_file_is(captioner, tiny, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 64, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    read = captioner._read
    assert np.array_equal(read(Image.open(path)), read(path))
    assert not np.array_equal(read(path), read(Image.fromarray(pixels)))


@pytest.mark.parametrize(
    "mode",
    [
        "1",
        "L",
        "LA",
        "La",
        "P",
        "PA",
        "RGB",
        "RGBA",
        "RGBa",
        "RGBX",
        "CMYK",
        "YCbCr",
        "HSV",
        "LAB",
        "I",
        "I;16",
        "F",
    ],
)
def test_an_open_image_of_any_mode_is_captioned(captioner, mode):
    assert isinstance(captioner.caption(Image.new(mode, (48, 32))), str)


def test_the_torch_model_is_the_one_that_ships(captioner, pictures):
    """Its float weights are those the packed ones stand for; activations are rounded in neither."""
    assert not captioner.model.training
    values = dict(captioner.model.named_parameters())
    quantized = captioner.checkpoint.compressed().quantized
    assert quantized
    for name, tensor in quantized.items():
        assert torch.equal(values[name], tensor.dequantize())


def test_policy_and_metrics_are_those_of_the_study(captioner, tiny_study):
    opened = open_checkpoint(tiny_study / "trials" / "00002" / "checkpoint")
    assert captioner.policy == opened.policy
    assert captioner.policy.steps
    assert captioner.metrics["cider"] == opened.metrics["cider"]


@pytest.mark.parametrize("kind", ["path", "bytes"])
def test_what_is_no_picture_is_named(captioner, tmp_path, kind):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(DataError, match="notes.txt" if kind == "path" else "no known image"):
        captioner.caption(path if kind == "path" else b"hello")


def test_a_missing_picture_is_named(captioner, tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg: must be readable, but No such file"):
        captioner.caption(tmp_path / "gone.jpg")


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"must hold a config\.json"):
        load(tmp_path)


def test_png_keeps_transparency(captioner, tmp_path):
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert np.array_equal(captioner._read(image), captioner._read(buffer.getvalue()))
    assert (captioner._read(image) == 255).all()
