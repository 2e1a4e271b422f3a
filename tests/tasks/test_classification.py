"""The classification task: its batches, its loss, its metrics and its files."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label_files import SHAPES, shapes_section, shapes_task, write_shapes
from torch import nn

from autocomp.data.split import ImageSplit
from autocomp.errors import CheckpointError, DataError, UserError
from autocomp.tasks.augmentation import Augmentation, augmented
from autocomp.tasks.base import torch_run
from autocomp.tasks.classification import Classification, ClassificationSettings

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), count=12)


@pytest.fixture(scope="module")
def task(root: Path) -> Classification:
    return shapes_task(root)


def many(classes: int, count: int = 20) -> Classification:
    """A task of many classes whose images nobody looks at."""
    task = shapes_task(Path("/nowhere"))
    names = tuple(f"class {index:02d}" for index in range(classes))
    task.classes = names
    images = np.zeros((count, 24, 24, 3), np.uint8)
    references = tuple((names[index % classes],) for index in range(count))
    task._splits["dev"] = ImageSplit("dev", images, tuple(map(str, range(count))), references)
    return task


def test_classes_are_those_of_the_training_images(task: Classification) -> None:
    assert task.classes == tuple(SHAPES)
    assert task.build()(torch.zeros(1, 3, 24, 24)).shape == (1, 3)
    assert "conv1.weight" in task.build().state_dict()  # as published weights have it


def test_labels_follow_their_images(root: Path) -> None:
    task = shapes_task(root, augmentation={"shift": 0, "flip": False})
    model, split = task.build(), task.split("train")
    seen = set()
    for (batch,) in itertools.islice(task.training_batches([model], 8, [], 0), 3):
        assert batch["images"].dtype == torch.uint8
        for image, label in zip(batch["images"].numpy(), batch["labels"].tolist(), strict=True):
            (row,) = [i for i, one in enumerate(split.images) if np.array_equal(one, image)]
            assert split.references[row] == (task.classes[label],)
            seen.add(row)
    assert len(seen) == 24


def test_augmentation_shifts_and_mirrors_alike_at_any_size() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(1, 256, (64, 16, 16, 3), dtype=np.uint8)
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    draws = np.round(rng.random((64, 3)) * 4) / 5
    settings = Augmentation(shift=0.25)
    one, other = augmented(small, draws, settings), augmented(large, draws, settings)
    assert one.shape == small.shape
    for index, (drawn, moved, larger) in enumerate(
        zip(draws, one.numpy(), other.numpy(), strict=True)
    ):
        top, left = (int(9 * share) - 4 for share in drawn[:2])
        flipped = moved[:, ::-1] if drawn[2] < 0.5 else moved
        inside = flipped[max(0, -top) : 16 - max(0, top), max(0, -left) : 16 - max(0, left)]
        own = small[index, max(0, top) : 16 + min(0, top), max(0, left) : 16 + min(0, left)]
        assert np.array_equal(inside, own)
        assert (moved == 0).any() == (top != 0 or left != 0)
        # pixels of the larger one lie on a finer grid: the same place to within one of its own
        assert abs(int((larger.sum(axis=(1, 2)) == 0).sum()) - 2 * abs(top)) <= 1
    assert torch.equal(
        augmented(small, draws, Augmentation(shift=0, flip=False)), torch.from_numpy(small)
    )


def test_a_smaller_student_sees_what_its_teacher_sees(task: Classification) -> None:
    teacher, smaller = task.build(), task.resized(16)
    student = smaller.build()
    assert smaller.inputs("train", 0, 2).shape == (2, 16, 16, 3)
    ((own, theirs),) = itertools.islice(smaller.training_batches([student, teacher], 8, [], 0), 1)
    assert own["images"].shape == (8, 16, 16, 3)
    assert theirs["images"].shape == (8, 24, 24, 3)
    assert torch.equal(own["labels"], theirs["labels"])
    means = [one["images"].float().mean(dim=(1, 2)) for one in (own, theirs)]
    assert torch.corrcoef(torch.stack([one.flatten() for one in means]))[0, 1] > 0.95


def test_the_loss_is_cross_entropy_and_stages_are_kept(task: Classification) -> None:
    model = task.build().eval()
    ((batch,),) = itertools.islice(task.training_batches([model], 8, [], 0), 1)
    outputs = task.forward(model, batch)
    wanted = -outputs.logits.log_softmax(1)[torch.arange(8), batch["labels"]].mean()
    torch.testing.assert_close(outputs.loss, wanted)
    assert list(outputs.hidden) == ["layer1", "layer2", "layer3"]
    assert outputs.hidden["layer3"].shape == (8, 64, 6, 6)
    assert task.forward(model, batch, label_smoothing=0.5).loss != outputs.loss
    assert task.features(model, batch).shape == (8, 1, 3)


def test_metrics_count_guesses(task: Classification) -> None:
    truth = [list(one) for one in task.split("dev").references]
    assert task.metrics(truth, "dev")["top_1"] == 1
    assert "top_5" not in task.metrics(truth, "dev")
    assert task.metric_names() == ("top_1", "top_class_share")
    stuck = task.metrics([["disc", "line", "square"]] * len(truth), "dev")
    assert stuck["top_class_share"] == 1
    assert stuck["top_1"] == truth.count(["disc"]) / len(truth)


def test_one_of_five_guesses_must_be_right() -> None:
    task = many(classes=10)
    names = task.classes
    guesses = [[names[(index + place) % 10] for place in range(5, 10)] for index in range(20)]
    metrics, scores = task.metrics(guesses, "dev"), task.per_example(guesses, "dev")
    assert metrics == {"top_1": 0, "top_5": 0, "top_class_share": 0.1}
    guesses[3][4], guesses[7][0] = names[3], names[7]
    metrics, scores = task.metrics(guesses, "dev"), task.per_example(guesses, "dev")
    assert metrics["top_1"] == 1 / 20
    assert metrics["top_5"] == 2 / 20
    assert np.flatnonzero(scores["top_5"]).tolist() == [3, 7]


def test_predictions_are_the_likeliest_classes_in_order() -> None:
    task = many(classes=10)
    logits = np.random.default_rng(0).normal(size=(20, 10)).astype(np.float32)
    found = task.predict(lambda name, **inputs: {"logits": logits}, task.inputs("dev", 0, 20))
    for row, names in zip(logits, found, strict=True):
        assert names == [task.classes[index] for index in np.argsort(-row)[:5]]
    assert task.said(found[0]) == found[0][0]


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"dense": {"steps": 9}}, True),
        ({"seed": 1}, False),
        ({"augmentation": {"flip": False}}, False),
        ({"model": {"name": "cifar_resnet32"}}, False),
        ({"model": {"name": "cifar_resnet20", "mean": (0, 0, 0), "std": (1, 1, 1)}}, False),
    ],
    ids=str,
)
def test_the_fingerprint_is_of_what_a_dense_model_depends_on(
    changes: dict[str, Any], same: bool, root: Path, task: Classification
) -> None:
    assert (task.fingerprint() == shapes_task(root, **changes).fingerprint()) == same


def test_every_label_and_pixel_counts_for_the_fingerprint(root: Path) -> None:
    found = {shapes_task(root).fingerprint()}
    for change in ("images", "references"):
        other = shapes_task(root)
        split = other.split("train")
        images, references = np.array(split.images), list(split.references)
        if change == "images":
            images[5, 3, 3, 1] ^= 1
        else:
            references[5] = ("square",)
        other._splits["train"] = replace(split, images=images, references=tuple(references))
        found.add(other.fingerprint())
    assert len(found) == 3


def test_a_task_is_restored_without_data_or_weights(
    task: Classification, root: Path, tmp_path: Path
) -> None:
    assert task.write_assets(tmp_path, threads=2) == ["preprocessing.json"]
    section = shapes_section(Path("/nowhere"))
    section["model"] = {"name": "cifar_resnet20", "weights": "/nowhere/weights.safetensors"}
    settings = ClassificationSettings.model_validate(section)
    restored = Classification.restore(settings, tmp_path)
    assert restored.classes == task.classes
    assert restored.build().state_dict().keys() == task.build().state_dict().keys()
    task.check_assets(tmp_path)
    content = json.loads((tmp_path / "preprocessing.json").read_text())
    assert content["threads"] == 2
    content["classes"].reverse()
    (tmp_path / "preprocessing.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="must have the classes of the training images"):
        task.check_assets(tmp_path)


def test_an_image_of_no_training_class_is_named(root: Path) -> None:
    task = shapes_task(root)
    split = task.split("train")
    task.classes = ("disc", "line")
    with pytest.raises(DataError, match="must have the classes of train alone, but has 'square'"):
        next(task.training_batches([task.build()], 4, [], 0))
    assert len(split) == task.size("train")


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)), "image_size: must be one the"),
        (nn.Flatten(), r"must give logits \(1, 3\) of an image, but gives \(1, 1728\)"),
        (Pair(), "but gives tuple"),
    ],
    ids=["other size", "no logits", "two outputs"],
)
def test_a_net_that_does_not_fit_says_why(
    net: nn.Module, message: str, task: Classification
) -> None:
    task.resize_(nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 3)))
    with pytest.raises(UserError, match=message):
        task.resize_(net)


def test_pixels_are_normalised_inside_the_graph(task: Classification) -> None:
    model = task.build().eval()
    images = task.inputs("dev", 0, 3)
    (logits,) = torch_run(task.graphs(model))("model", images=images).values()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(pixels), atol=1e-4, rtol=1e-4)
