from __future__ import annotations

import json
import shutil
from pathlib import Path

from autocomp.report.layers import layers
from autocomp.study.study import Study
from autocomp.tensors import TensorRecords


def test_layers_add_up_to_the_tensors(whole: Path):
    found = layers(Study.load(whole))
    for number, own in found["trials"].items():
        tensors = TensorRecords.read(whole / f"trials/{number:05d}/tensors.json").tensors
        assert sum(one[3] for one in own if one) == sum(one.bytes for one in tensors)


def test_a_layer_is_its_weight_and_what_belongs_to_it(whole: Path):
    found = layers(Study.load(whole))
    assert found["layers"] == [
        {"name": "encoder.conv", "block": "encoder.conv"},
        {"name": "decoder.layers.0.ffn.up", "block": "decoder.layers.0"},
        {"name": "decoder.layers.1.ffn.up", "block": "decoder.layers.1"},
    ]
    assert found["trials"][0][0] == ([64, 16], 32, 32, 64 * 64 + 4 * 64)
    assert found["trials"][4][0] == ([60, 16], 8, 8, 60 * 16 + 4 * 60)


def test_a_layer_says_what_it_computes_in(whole: Path, tmp_path: Path):
    study = shutil.copytree(whole, tmp_path / "study")
    path = study / "trials/00004/tensors.json"
    content = json.loads(path.read_text())
    content["tensors"][0] |= {"bits": 5, "computed_bits": 8}
    path.write_text(json.dumps(content))
    assert layers(Study.load(study))["trials"][4][0][1:3] == (5, 8)


def test_a_removed_layer_is_none(whole: Path):
    found = layers(Study.load(whole))
    last = max(found["trials"])
    assert found["trials"][last][2] is None
    assert found["trials"][last][1] is not None
