"""What a study keeps of its trials' tensors."""

from __future__ import annotations

from pathlib import Path

import pytest

from autocomp.checkpoint.folder import open_checkpoint
from autocomp.errors import StudyError
from autocomp.study.store import trial_folder
from autocomp.study.study import Study
from autocomp.tensors import TENSORS, TensorRecord, TensorRecords


def test_every_complete_trial_of_a_search_leaves_a_record(tiny_study: Path) -> None:
    study = Study.load(tiny_study)
    dense = {one.name: one for one in _read(tiny_study, 0)}
    for number, result in study.results.items():
        assert result.status == "complete"
        own = {one.name: one for one in _read(tiny_study, number)}
        assert set(own) <= set(dense)
        total = sum(one.bytes for one in own.values())
        # the safetensors file adds a header, and the configuration is downloaded as well
        assert 0.5 * result.metrics["download_mb"] < total / 1e6 < result.metrics["download_mb"]


def test_the_record_is_of_the_checkpoint(tiny_study: Path) -> None:
    for folder in (tiny_study / "trials").glob("*/checkpoint"):
        stored = open_checkpoint(folder).config.tensors
        records = TensorRecords.read(folder.parent / TENSORS).tensors
        assert [(one.name, one.shape, one.bits) for one in records] == [
            (name, how.shape, how.bits) for name, how in stored.items()
        ]


def test_a_record_comes_back(tmp_path: Path) -> None:
    records = TensorRecords(
        tensors=(TensorRecord(name="a.weight", shape=(3, 4), bits=4, bytes=12),)
    )
    records.write(tmp_path / TENSORS)
    assert TensorRecords.read(tmp_path / TENSORS) == records


@pytest.mark.parametrize("content", [None, "{", "[]", '{"tensors": [{"name": "a"}]}'])
def test_a_damaged_record_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / TENSORS
    if content is not None:
        path.write_text(content)
    with pytest.raises(StudyError, match=r"tensors\.json"):
        TensorRecords.read(path)


def _read(study: Path, number: int) -> tuple[TensorRecord, ...]:
    return TensorRecords.read(trial_folder(study, number) / TENSORS).tensors
