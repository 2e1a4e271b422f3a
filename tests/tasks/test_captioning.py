"""The captioning task: its batches, its graphs in both runtimes, its metrics and its files."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import (
    RECURRENT,
    keep_heads_,
    recurrent_task,
    tiny_captioner,
    tiny_task,
)

from autocomp.compress.formats import Compressed
from autocomp.compress.quantize import quantize_
from autocomp.compress.transformer import prune_width_
from autocomp.decisions import validate
from autocomp.deploy.caption import BOS, EOS, PAD
from autocomp.errors import SpaceError
from autocomp.models.captioner import Captioner
from autocomp.policy import PruneWidth, Quantize
from autocomp.targets import load_target
from autocomp.tasks.base import Run, torch_run
from autocomp.tasks.captioning import Captioning, CaptioningSettings

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def task() -> Captioning:
    return tiny_task({"encoder_layers": 1})


def batches(
    task: Captioning, model: Captioner, size: int, seed: int = 0, frozen: bool = False
) -> Any:
    names = [] if frozen else [name for name, _ in model.named_parameters()]
    return task.training_batches([model], size, names, seed)


def deployed(task: Captioning, model: Captioner, bits: int, folder: Path) -> tuple[Run, Run]:
    """The model at `bits` in PyTorch and in ONNX Runtime."""
    compressed = Compressed(model)
    # convolutions round their activations, which PyTorch does not
    quantize_(compressed, Quantize(layers="**", exclude="encoder.backbone", bits=bits))
    graphs = task.graphs(model)
    target = load_target("onnxruntime")
    return torch_run(graphs), target.open(target.lower(graphs, compressed, folder))


def transformer() -> tuple[Captioning, Captioner]:
    task = tiny_task({"encoder_layers": 1})
    model = tiny_captioner(task)
    keep_heads_(model.decoder.numbered()[1][1].self_attention, [1])
    return task, model


def recurrent(name: str) -> tuple[Captioning, Captioner]:
    task = recurrent_task(name)
    model = tiny_captioner(task)
    prune_width_(model, PruneWidth(layers="decoder", ratio=0.5))
    return task, model


CAPTIONERS = {"transformer": transformer} | {name: partial(recurrent, name) for name in RECURRENT}


@pytest.mark.parametrize("kind", CAPTIONERS)
@pytest.mark.parametrize("bits", [32, 8, 4])
def test_the_artefact_captions_as_the_model_does_batched_and_alone(
    bits: int, kind: str, tmp_path: Path
) -> None:
    task, model = CAPTIONERS[kind]()
    with torch.no_grad():
        model.decoder.embedding.weight.mul_(4)  # far from ties
    in_torch, in_runtime = deployed(task, model, bits, tmp_path)
    images = task.inputs("dev", 0, 8)
    together = task.predict(in_runtime, images)
    assert together == [task.predict(in_runtime, images[i : i + 1])[0] for i in range(8)]
    # activations of packed layers are rounded to 8 bits in the runtime
    agree = [a == b for a, b in zip(together, task.predict(in_torch, images), strict=True)]
    assert sum(agree) >= (8 if bits == 32 else 4)


@pytest.mark.parametrize("kind", CAPTIONERS)
@pytest.mark.parametrize(("bits", "tolerance"), [(32, 1e-4), (8, 0.05), (4, 0.05)])
def test_the_artefact_computes_the_same_logits(
    bits: int, tolerance: float, kind: str, tmp_path: Path
) -> None:
    task, model = CAPTIONERS[kind]()
    runs = deployed(task, model, bits, tmp_path)
    images, logits = task.inputs("dev", 0, 3), []
    for run in runs:
        state = run("encoder", images=images)
        steps = []
        for place, token in enumerate((BOS, 7, 9)):
            tokens, position = np.full((3, 1), token), np.array([place])
            outputs = run("decoder", token=tokens, position=position, **state)
            steps.append(outputs.pop("logits"))
            state.update({name.removesuffix("_next"): value for name, value in outputs.items()})
        logits.append(np.stack(steps))
    expected, found = logits
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_a_graph_names_the_layers_that_are_left(task: Captioning) -> None:
    model = task.build().eval()
    del model.decoder.layers["0"]
    graphs = task.graphs(model)
    assert graphs["encoder"].outputs == ("cross_k_1", "cross_v_1", "self_k_1", "self_v_1")
    assert graphs["decoder"].outputs == ("logits", "self_k_1_next", "self_v_1_next")
    assert [name for name, graph in graphs.items() if graph.sequential] == ["decoder"]


def test_the_dense_model_is_the_same_on_every_call(task: Captioning) -> None:
    torch.manual_seed(5)
    first, before = task.build().state_dict(), torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), before)  # and no one else's numbers change
    again = task.build().state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"generation": {"max_length": 12, "beam": 3}}, True),
        ({"dense": {"steps": 99}}, True),
        ({"meteor": None}, True),
        ({"seed": 1}, False),
        ({"min_count": 3}, False),
        ({"captions_per_image": 1}, False),
        ({"data": {"kind": "scenes", "train": 40, "image_size": 32}}, False),
        ({"model": {"ffn": 32}}, False),
        ({"model": {"heads": 4}}, False),
        ({"model": {"dropout": 0.3}}, False),
    ],
    ids=lambda value: str(value),
)
def test_the_fingerprint_is_of_what_a_dense_model_depends_on(
    changes: dict[str, Any], same: bool
) -> None:
    assert (tiny_task().fingerprint() == tiny_task(**changes).fingerprint()) == same


def test_every_pixel_counts_for_the_fingerprint() -> None:
    one, other = tiny_task(), tiny_task()
    split = other.split("train")
    images = np.array(split.images)
    images[17, 3, 5, 1] ^= 1
    other._splits["train"] = replace(split, images=images)
    assert one.fingerprint() != other.fingerprint()


def test_batches_hold_several_captions_of_each_image(task: Captioning) -> None:
    model = task.build()
    split, epoch = task.split("train"), list(itertools.islice(batches(task, model, 16), 3))
    seen = []
    for (batch,) in epoch:
        images, tokens = batch["images"], batch["tokens"]
        assert images.shape == (16, 32, 32, 3)
        assert images.dtype == torch.uint8
        assert len(tokens) == 16 * 2
        assert (tokens[:, 0] == BOS).all()
        assert ((tokens == EOS).sum(dim=1) == 1).all()
        assert (tokens[:, -1] != PAD).any()
        for place, image in enumerate(images.numpy()):
            (row,) = [r for r in range(48) if np.array_equal(split.images[r], image)][:1]
            references = [task.tokenizer.encode(caption)[:11] for caption in split.references[row]]
            for caption in tokens[2 * place : 2 * place + 2].tolist():
                assert [token for token in caption if token not in (PAD, BOS, EOS)] in references
            seen.append(row)
    assert len(set(seen)) == 48


@pytest.mark.parametrize("size", [16, 40, 48, 100])
def test_a_batch_is_full_or_the_whole_split(size: int, task: Captioning) -> None:
    model = task.build()
    for (batch,) in itertools.islice(batches(task, model, size), 4):
        assert len(batch["images"]) == min(size, 48)


def test_batches_depend_on_the_seed_and_not_on_what_is_frozen(task: Captioning) -> None:
    model = tiny_captioner(task)
    ((first,),) = itertools.islice(batches(task, model, 16), 1)
    ((again,),) = itertools.islice(batches(task, model, 16, frozen=True), 1)
    ((other,),) = itertools.islice(batches(task, model, 16, seed=1), 1)
    assert torch.equal(first["tokens"], again["tokens"])
    assert not torch.equal(first["images"], other["images"])
    assert set(again) == {"features", "tokens"}
    with torch.no_grad():
        expected = model.encoder.features(first["images"])
    torch.testing.assert_close(again["features"].float(), expected, atol=2e-3, rtol=2e-3)


def test_the_loss_is_of_real_tokens_alone(task: Captioning) -> None:
    model = tiny_captioner(task)
    ((batch,),) = itertools.islice(batches(task, model, 8), 1)
    outputs = task.forward(model, batch)
    assert len(outputs.logits) == int((batch["tokens"][:, 1:] != PAD).sum())
    longer = torch.nn.functional.pad(batch["tokens"], (0, 1), value=PAD)[:, :13]
    padded = task.forward(model, {**batch, "tokens": longer})
    torch.testing.assert_close(padded.loss, outputs.loss)
    for name, state in outputs.hidden.items():  # nor do hidden states know of padding
        torch.testing.assert_close(padded.hidden[name], state)
    assert task.forward(model, batch, label_smoothing=0.5).loss != outputs.loss


def test_metrics_of_references_are_perfect_and_count_steps(task: Captioning) -> None:
    references = [captions[0] for captions in task.split("dev").references]
    perfect = task.metrics(references, "dev")
    assert perfect["bleu_4"] == pytest.approx(1)
    assert "meteor" not in perfect
    counts = [min(len(reference.split()) + 1, 12) for reference in references]
    assert perfect["mean_tokens"] == pytest.approx(np.mean(counts))
    assert task.metrics([""] * 16, "dev")["mean_tokens"] == 1


def test_the_first_examples_of_a_split_can_be_scored_alone(task: Captioning) -> None:
    references = [captions[0] for captions in task.split("dev").references]
    assert task.metrics(references[:5], "dev")["bleu_4"] == pytest.approx(1)
    assert task.metrics(references, "dev")["bleu_4"] == pytest.approx(1)


def test_examples_have_names_and_scores_that_average_to_the_metrics(task: Captioning) -> None:
    guesses = ["a red circle", "", *(image[1] for image in task.split("dev").references[2:])]
    metrics, scores = task.metrics(guesses, "dev"), task.per_example(guesses, "dev")
    assert set(scores) == {"cider", "rouge_l"}
    for name, each in scores.items():
        assert each.shape == (len(task.names("dev")),) == (16,)
        assert each[1] == 0
        assert each.mean() == pytest.approx(metrics[name])


def test_meteor_can_be_demanded() -> None:
    from autocomp.errors import UserError

    # the surroundings of these tests have no Java
    with pytest.raises(UserError, match="meteor: needs Java"):
        tiny_task(meteor=True).metrics([""] * 16, "dev")


def test_raw_examples_are_read_as_the_split_holds_them(task: Captioning) -> None:
    raw = task.raw_inputs("test", 3)
    assert len(raw) == 3
    for index, example in enumerate(raw):
        assert np.array_equal(task.read(example), task.inputs("test", index, index + 1))
    assert len(task.raw_inputs("test", 99)) == task.size("test") == 16


def test_a_task_is_restored_without_data_or_weights(task: Captioning, tmp_path: Path) -> None:
    assert task.write_assets(tmp_path, threads=2) == ["tokenizer.json", "preprocessing.json"]
    section = task.settings.model_dump(mode="json")
    section["data"] = {"kind": "flickr8k", "root": "/nowhere", "image_size": 32}
    section["model"]["weights"] = "/nowhere/weights.safetensors"
    settings = CaptioningSettings.model_validate(section)
    restored = Captioning.restore(settings, tmp_path)
    assert restored.tokenizer == task.tokenizer
    shapes = {name: tensor.shape for name, tensor in restored.build().state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in task.build().state_dict().items()}
    written = json.loads((tmp_path / "preprocessing.json").read_text())
    assert written["generation"] == task.settings.generation.model_dump()
    assert written["image_size"] == 32
    assert written["threads"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dense": {}}, None),
        ({"dense": {"checkpoint": "a", "stages": [{"kind": "retrain", "steps": 1}]}}, "either"),
        ({"dense": {"step": 5}}, "did you mean 'steps'"),
        ({"generation": {"beams": 3}}, "task.generation: unknown key 'beams'; did you mean 'beam'"),
        ({"data": {"kind": "coco"}}, "task.data.kind: must be one of coco_captions, flickr8k"),
    ],
    ids=["no steps", "two sources", "step", "beams", "coco"],
)
def test_settings_that_make_no_task_say_why(changes: dict[str, Any], message: str | None) -> None:
    with pytest.raises(SpaceError) as caught:
        validate(CaptioningSettings, {**_section(), **changes}, "task", SpaceError)
    assert message is None or message in str(caught.value)


def _section() -> dict[str, Any]:
    from tiny_models import SECTION

    return SECTION


def test_what_a_split_skips_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = flickr8k(tmp_path, images=30)
    (root / "Images" / "3.jpg").write_bytes(b"not an image")
    data = {"kind": "flickr8k", "root": str(root), "image_size": 32, "max_unreadable": 0.1}
    split = tiny_task(data=data).split("train")
    assert len(split) == 29
    assert "train: 1 skipped: 3.jpg" in caplog.text


def flickr8k(root: Path, images: int) -> Path:
    """A folder in the Kaggle layout with gray images and one caption each."""
    (root / "Images").mkdir()
    names = [f"{index}.jpg" for index in range(images)]
    for name in names:
        Image.new("RGB", (40, 40), "gray").save(root / "Images" / name)
    captions = "".join(f"{name},a gray square number {name[0]}\n" for name in names)
    (root / "captions.txt").write_text("image,caption\n" + captions)
    (root / "Flickr_8k.trainImages.txt").write_text("\n".join(names))
    return root
