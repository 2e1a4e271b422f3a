"""What a trial predicted comes back from its file as it was, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autocomp.errors import StudyError
from autocomp.predictions import Predictions

CAPTIONS = Predictions(
    split="dev",
    names=("1.jpg", "2.jpg"),
    predictions=("a “red” dog", ""),
    scores={"cider": (0.25, 0.0), "rouge_l": (0.5, 0.0)},
)
CLASSES = Predictions(
    split="test", names=("a", "b", "c"), predictions=(7, 0, 7), scores={"accuracy": (1, 0, 1)}
)


@pytest.mark.parametrize("made", [CAPTIONS, CLASSES], ids=["captions", "classes"])
def test_what_is_written_is_read_back(made: Predictions, tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    made.write(path)
    assert Predictions.read(path) == made
    assert list(json.loads(path.read_text())) == ["split", "names", "predictions", "scores"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predictions": ["a dog"]}, "predictions: must hold one value for each of the 2 names"),
        ({"scores": {"cider": [1.0] * 3}}, r"cider: must .* of the 2 names, but got 3"),
        ({"scores": {"cider": [1.0, float("nan")]}}, r"cider\.1: must be a finite number"),
        ({"score": {}}, "unknown key 'score'; did you mean 'scores'?"),
    ],
    ids=["too few predictions", "too many scores", "not finite", "unknown key"],
)
def test_another_content_is_refused_with_its_place(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(CAPTIONS.model_dump(mode="json") | changes))
    with pytest.raises(StudyError, match=rf"predictions\.json.*{message}"):
        Predictions.read(path)


@pytest.mark.parametrize("content", [b'{"split": "dev"', b"\xff\xfe"], ids=["cut", "no text"])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=r"predictions\.json: must be a readable JSON file"):
        Predictions.read(path)
