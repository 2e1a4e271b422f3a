"""Twelve photos with what the dense model and each trial say of them: captions, or classes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple, cast

from pydantic import BaseModel

from autocomp.data.captions import DataSettings, ImageSplit, SplitName, load_split
from autocomp.data.images import thumbnail
from autocomp.data.labels import LabelledData, load_labelled
from autocomp.decisions import validate
from autocomp.errors import DataError, SpaceError, StudyError
from autocomp.predictions import PREDICTIONS, Predictions
from autocomp.results import DENSE_TRIAL
from autocomp.space.metrics import METRICS
from autocomp.study.store import trial_folder
from autocomp.study.study import Study

PHOTOS = 12
LONGEST_SIDE = 320
"""Of a photo, in pixels: sharp at the page's 300 without weighing more than 15 kB."""


class _Section(BaseModel):
    data: Any


class _Captioned(_Section):
    data: DataSettings


class _Labelled(_Section):
    data: LabelledData


class Shown(NamedTuple):
    """How the photos of a kind of task are loaded, and what a prediction says of one."""

    section: type[_Section]
    load: Callable[[Any, SplitName], ImageSplit]
    said: Callable[[Any], str]


SHOWN: dict[str, Shown] = {
    "captioning": Shown(_Captioned, load_split, str),
    "classification": Shown(_Labelled, load_labelled, lambda likeliest: str(likeliest[0])),
}
"""The kinds of task whose examples are photos."""


def gallery(study: Study) -> dict[str, Any]:
    """The photos, and what every trial whose predictions were kept says of them, with its scores.

    {"metric", "how", "photos": [{"name", "image", "references"}], "trials": {number: [[words,
    score], ...]}}, where a score is None if the trial has none of that name; {"missing": why}
    without the dense model's predictions, without its scores or without the data.
    """
    kind = SHOWN.get(str(study.space.task.get("kind")))
    if kind is None:
        return {"missing": f"need a task of {' or '.join(SHOWN)}"}
    kept = _kept(study)
    if DENSE_TRIAL not in kept:
        rule = "needs what the dense model predicted (trials/00000/predictions.json)"
        return {"missing": f"{rule}, which this study did not keep"}
    dense = kept[DENSE_TRIAL]
    if not dense.scores:
        return {"missing": "needs the dense model's score on each image, and it has none"}
    metric = _metric(study, dense)
    try:
        section = validate(kind.section, study.space.task, "task", SpaceError)
        split = kind.load(section.data, cast(SplitName, dense.split))
        members = [kept[one.trial] for one in study.front().members if one.trial in kept]
        others = [one.scores[metric] for one in members if metric in one.scores]
        shown = choose(dense.scores[metric], others)
        photos = [_photo(split, dense.names[index]) for index in shown]
    except (DataError, SpaceError) as failure:
        return {"missing": f"needs the study's photos, but {' '.join(failure.problems)}"}
    nothing = [None] * len(dense.names)
    trials = {
        number: [
            [kind.said(own.predictions[index]), own.scores.get(metric, nothing)[index]]
            for index in shown
        ]
        for number, own in kept.items()
    }
    return {"metric": metric, "how": _how(dense), "photos": photos, "trials": trials}


def choose(
    dense: Sequence[float], others: Sequence[Sequence[float]], count: int = PHOTOS
) -> list[int]:
    """Which images to show, by index: spread over dense's scores, and where the others differ most.

    `count` - 1 are evenly spaced from dense's worst to its best; one more, if it is none of them,
    has the largest mean difference between dense's score and the others'. Ordered from worst to
    best. All of them if there are no more than `count`.
    """
    order = sorted(range(len(dense)), key=lambda index: (dense[index], index))
    if len(order) <= count:
        return order
    last = len(order) - 1
    spread = {order[round(step * last / (count - 2))] for step in range(count - 1)}
    left = [index for index in order if index not in spread]
    if others:
        spread.add(max(left, key=lambda index: fmean(abs(o[index] - dense[index]) for o in others)))
    return [index for index in order if index in spread]


def _kept(study: Study) -> dict[int, Predictions]:
    """The predictions of complete trials; `StudyError` if two are not of the same images."""
    found = {
        number: Predictions.read(path)
        for number, result in study.results.items()
        if result.status == "complete"
        and (path := trial_folder(study.directory, number) / PREDICTIONS).exists()
    }
    for number, one in found.items():
        if (one.split, one.names) != (found[min(found)].split, found[min(found)].names):
            place = trial_folder(study.directory, number) / PREDICTIONS
            raise StudyError(f"{place}: must be of the same images as the others, but is not")
    return found


def _metric(study: Study, dense: Predictions) -> str:
    """The first objective that has a score for each image, else the first score there is."""
    named = [one.metric for one in study.space.objectives if METRICS.get(one.metric) == "maximize"]
    return next((one for one in named if one in dense.scores), next(iter(dense.scores)))


def _photo(split: ImageSplit, name: str) -> dict[str, Any]:
    if name not in split.names:
        raise DataError(f"{name}: must be in the {split.name} split, but is not")
    index = split.names.index(name)
    small = thumbnail(split.jpeg(index), LONGEST_SIDE)
    return {
        "name": name,
        "image": f"data:image/jpeg;base64,{base64.b64encode(small).decode()}",
        "references": list(split.references[index]),
    }


def _how(dense: Predictions) -> str:
    """How the photos were chosen, so that nobody takes them for picked."""
    if len(dense.names) <= PHOTOS:
        return f"all {len(dense.names)} images of the {dense.split} split"
    return (
        f"{PHOTOS - 1} of the {len(dense.names):,} images of the {dense.split} split, evenly "
        "spaced from the dense model's worst to its best, and the one where the front differs "
        "most from it"
    )
