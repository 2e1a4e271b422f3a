from __future__ import annotations

import base64
import io
import itertools
import json
import shutil
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_study import DATA, add_predictions, make_study
from PIL import Image

from autocomp.data.scenes import ScenesSettings, load_scenes
from autocomp.errors import StudyError
from autocomp.report.gallery import PHOTOS, choose, gallery
from autocomp.study.study import Study

SCORES = st.lists(st.floats(0, 5), min_size=1, max_size=60)


@given(SCORES, st.randoms())
def test_photos_are_spread_from_worst_to_best(dense, rng):
    other = [rng.random() for _ in dense]
    shown = choose(dense, [other])
    assert len(shown) == len(set(shown)) == min(PHOTOS, len(dense))
    values = [dense[index] for index in shown]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (min(dense), max(dense))
    assert shown == choose(dense, [other])


def test_the_photo_where_they_differ_most_is_among_them():
    dense = [index / 100 for index in range(100)]
    assert 43 not in choose(dense, [])
    others = [[*dense], [*dense]]
    others[1][43] = 5.0
    shown = choose(dense, others)
    assert 43 in shown
    assert len(shown) == PHOTOS
    gaps = [later - earlier for earlier, later in itertools.pairwise(shown)]
    assert max(gaps) <= 10
    assert fmean(gaps) == pytest.approx(9)


def test_shows_the_photos_of_the_split_with_everyones_captions(whole: Path):
    found = gallery(Study.load(whole))
    split = load_scenes(ScenesSettings(**DATA), "dev")
    assert found["metric"] == "cider"
    assert "11 of the 40 images of the dev split" in found["how"]
    for position, photo in enumerate(found["photos"]):
        index = split.names.index(photo["name"])
        assert photo["references"] == list(split.references[index])
        for number, captions in found["trials"].items():
            kept = json.loads((whole / f"trials/{number:05d}/predictions.json").read_text())
            expected = [kept["predictions"][index], kept["scores"]["cider"][index]]
            assert captions[position] == expected
        start = "data:image/jpeg;base64,"
        assert photo["image"].startswith(start)
        image = Image.open(io.BytesIO(base64.b64decode(photo["image"].removeprefix(start))))
        assert (image.format, image.size) == ("JPEG", (32, 32))


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ({"data": {"kind": "flickr8k", "root": "${NO_SUCH_VARIABLE}/x"}}, "NO_SUCH_VARIABLE"),
        ({"data": {"kind": "flickr8k", "root": "/no/such/folder"}}, "there is no /no/such/folder"),
        ({"data": {"kind": "scenes", "dev": 2, "image_size": 32}}, "must be in the dev split"),
        ({"data": {"kind": "unheard of"}}, "unheard of"),
    ],
    ids=["variable", "folder", "other images", "other data"],
)
def test_without_the_photos_it_says_why(tmp_path: Path, task, why: str):
    directory = make_study(tmp_path / "moved", trials=3, **task)
    add_predictions(directory)
    assert why in gallery(Study.load(directory))["missing"]


def test_another_task_has_no_photos(tmp_path: Path):
    directory = make_study(tmp_path / "own", trials=2, kind="python")
    assert gallery(Study.load(directory)) == {
        "missing": "need a task of captioning or classification"
    }


def without_scores(whole: Path, copied: Path, trial: int) -> Path:
    """A copy of the study, in which one trial's predictions have no scores."""
    shutil.copytree(whole, copied)
    path = copied / f"trials/{trial:05d}/predictions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scores": {}}))
    return copied


def test_a_trial_without_the_score_has_its_captions(whole: Path, tmp_path: Path):
    number = max(one.trial for one in Study.load(whole).front().members)
    found = gallery(Study.load(without_scores(whole, tmp_path / "copied", number)))
    for trial, captions in found["trials"].items():
        assert len(captions) == PHOTOS
        assert all(words.startswith("a red star") for words, _ in captions)
        assert all((score is None) == (trial == number) for _, score in captions)


def test_without_scores_of_dense_it_says_so(whole: Path, tmp_path: Path):
    found = gallery(Study.load(without_scores(whole, tmp_path / "copied", 0)))
    assert found == {"missing": "needs the dense model's score on each image, and it has none"}


def test_predictions_of_other_images_are_refused(whole: Path, tmp_path: Path):
    copied = shutil.copytree(whole, tmp_path / "copied")
    path = copied / "trials/00004/predictions.json"
    content = json.loads(path.read_text())
    content["names"].reverse()
    path.write_text(json.dumps(content))
    with pytest.raises(StudyError, match="of the same images"):
        gallery(Study.load(copied))
