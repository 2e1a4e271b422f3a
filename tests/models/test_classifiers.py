"""Classifiers: their shapes, their published weights, and what becomes of another head."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from autocomp.compress.channels import channel_layers, prune_channels_
from autocomp.data.cifar10 import Cifar10Settings, load_cifar10
from autocomp.decisions import validate
from autocomp.errors import SpaceError, UserError
from autocomp.models import classifiers
from autocomp.models.cifar import CIFAR_CLASSIFIERS
from autocomp.models.classifiers import (
    ClassifierSettings,
    Normalize,
    PixelsToLogits,
    build_classifier,
    normalization_of,
)
from autocomp.models.libraries import IMAGENET
from autocomp.policy import PruneChannels

DATA = Path(os.environ.get("AUTOCOMP_DATA", "/nonexistent"))
PARAMETERS = {
    "cifar_resnet20": 269_722,
    "cifar_resnet32": 464_154,
    "cifar_resnet44": 658_586,
    "cifar_resnet56": 853_018,
    "cifar_resnet18": 11_173_962,
    "cifar_vgg16": 14_719_818,
    "cifar_vgg16_bn": 14_728_266,
}
SMALL = [name for name, count in PARAMETERS.items() if count < 10**6]


def built(name: str, classes: int = 10, **settings: str) -> nn.Module:
    torch.manual_seed(0)
    return build_classifier(ClassifierSettings(name=name, **settings), classes).eval()


@pytest.mark.parametrize("name", CIFAR_CLASSIFIERS)
def test_they_have_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        net = CIFAR_CLASSIFIERS[name](10)
    assert sum(one.numel() for one in net.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("side", [32, 24, 48])
def test_they_take_images_of_any_size(name: str, side: int) -> None:
    assert built(name, classes=7)(torch.zeros(2, 3, side, side)).shape == (2, 7)


@pytest.mark.skipif(not DATA.exists(), reason="AUTOCOMP_DATA is not set")
@pytest.mark.parametrize(("name", "top_1"), [("cifar_resnet20", 0.917), ("cifar_resnet32", 0.926)])
def test_published_weights_reach_their_published_accuracy(name: str, top_1: float) -> None:
    settings = ClassifierSettings(
        name=name, weights=str(DATA / "weights" / f"{name.replace('_', '10_')}.safetensors")
    )
    split = load_cifar10(Cifar10Settings(root=str(DATA / "cifar10")), "test")
    model = PixelsToLogits(
        Normalize(normalization_of(settings)), build_classifier(settings, 10).eval()
    )
    with torch.no_grad():
        (logits,) = model(torch.from_numpy(np.array(split.images)))
    classes = sorted({name for (name,) in split.references})
    right = [
        classes[row] == own for row, (own,) in zip(logits.argmax(1), split.references, strict=True)
    ]
    # two standard errors of 500 images are .024
    assert np.mean(right) == pytest.approx(top_1, abs=0.024)


def plant_dead_channels(net: nn.Module, names: list[str]) -> dict[str, list[int]]:
    """Let some channels of each convolution be zero whatever comes in: its norm says so."""
    dead: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        norm = net.get_submodule(name.replace("conv", "bn"))
        assert isinstance(norm, nn.BatchNorm2d)
        count = len(norm.weight)
        dead[name] = [(place + 3 * index) % count for index in range(int(0.3 * count))]
        with torch.no_grad():
            norm.weight[dead[name]] = 0
            norm.bias[dead[name]] = 0
    return dead


def test_dead_channels_go_and_padded_shortcuts_lose_none() -> None:
    """Shortcuts of option A shift channels, which whoever cuts them must know."""
    net = built("cifar_resnet20")
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    images = torch.randn(4, 3, 32, 32)
    names = [f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(3)]
    assert channel_layers(net, images) == names
    dead = plant_dead_channels(net, names)
    filters = {name: net.get_submodule(name).weight.detach().clone() for name in names}
    with torch.no_grad():
        expected = net(images)
    step = PruneChannels(layers="**", ratio=0.3, criterion="bn_scale", round_to=1)
    skipped = prune_channels_(net, step, images)
    with torch.no_grad():
        torch.testing.assert_close(net(images), expected, atol=1e-4, rtol=1e-4)
    for name, gone in dead.items():
        left = [index for index in range(len(filters[name])) if index not in gone]
        assert torch.equal(net.get_submodule(name).weight, filters[name][left])
    residual = ["conv1", *(name.replace("conv1", "conv2") for name in names)]
    assert [line.split(":")[0] for line in skipped] == residual
    assert all("a padded shortcut" in line for line in skipped)


def test_a_head_of_other_classes_stays_random(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "weights.safetensors"
    other = built("cifar_resnet20", classes=10)
    save_file({name: one + 1 for name, one in other.state_dict().items()}, path)
    fresh = built("cifar_resnet20", classes=3)
    classifiers._warn_of_head.cache_clear()
    with caplog.at_level(logging.WARNING):
        net, _ = (built("cifar_resnet20", classes=3, weights=str(path)) for _ in range(2))
    assert caplog.text.count("linear: starts from random weights") == 1
    values, random = net.state_dict(), fresh.state_dict()
    assert torch.equal(values["conv1.weight"], other.state_dict()["conv1.weight"] + 1)
    assert torch.equal(values["linear.weight"], random["linear.weight"])


def test_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(built("cifar_resnet20").state_dict(), path)
    with pytest.raises(UserError, match=r"task\.model\.weights: must hold every weight .* 'layer1"):
        built("cifar_resnet32", weights=str(path))
    save_file(built("cifar_resnet32").state_dict(), path)
    with pytest.raises(UserError, match=r"of layers that it has not, 'layer1\.3"):
        built("cifar_resnet20", weights=str(path))
    save_file({**built("cifar_resnet20").state_dict(), "bias": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"of layers that it has not, 'bias'"):
        built("cifar_resnet20", weights=str(path))
    path.write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"task\.model\.weights: must be default, none or"):
        built("cifar_resnet20", weights=str(path))


@pytest.mark.parametrize("name", ["squeezenet1_1", "lcnet_035"], ids=["torchvision", "timm"])
def test_libraries_give_any_number_of_classes(name: str) -> None:
    assert built(name, classes=4)(torch.zeros(2, 3, 64, 64)).shape == (2, 4)
    mean, std = normalization_of(ClassifierSettings(name=name))
    assert len(mean) == len(std) == 3


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_classifiers_on_the_way_are_left_out(name: str, tmp_path: Path) -> None:
    """They have other shapes than weights of other classes, and give tuples while training."""
    from torchvision import models

    whole = models.get_model(name, init_weights=False)
    save_file(whole.state_dict(), tmp_path / "published.safetensors")
    net = built(name, classes=4, weights=str(tmp_path / "published.safetensors"))
    assert not [key for key in net.state_dict() if "aux" in key.lower()]
    images = torch.randn(2, 3, 96, 96)
    assert net.train()(images).shape == (2, 4)
    # what the weights were trained on: the net scales pixels anew before its first layer
    seen: list[torch.Tensor] = []
    first = next(one for one in net.modules() if isinstance(one, nn.Conv2d))
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    net.eval()(images)
    torch.testing.assert_close(seen[0], scaled_anew(images), atol=1e-6, rtol=1e-6)


def scaled_anew(images: torch.Tensor) -> torch.Tensor:
    """Pixels normalised for ImageNet as those of mean and deviation 0.5."""
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in IMAGENET)
    return (images * std + mean - 0.5) / 0.5


@pytest.mark.parametrize(
    ("name", "mean"), [("resnet18", 0.485), ("efficientnet_v2_l", 0.5), ("mixer_b16_224", 0.5)]
)
def test_normalization_is_the_library_s(name: str, mean: float) -> None:
    assert normalization_of(ClassifierSettings(name=name))[0][0] == mean


def test_normalization_is_what_is_given() -> None:
    mean, std = (0.5, 0.25, 0.0), (0.5, 1.0, 0.25)
    settings = ClassifierSettings(name="cifar_resnet20", mean=mean, std=std)
    assert normalization_of(settings) == (mean, std)
    pixels = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    found = Normalize(normalization_of(settings))(pixels)[0, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([1.0, 0.75, 4.0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "cifar_resnet21"}, "did you mean 'cifar_resnet"),
        ({"name": "cifar_resnet20", "weights": "default"}, "must be none or a path"),
        ({"name": "cifar_resnet20", "mean": (0.5, 0.5, 0.5)}, "given together"),
        ({"name": "cifar_resnet20", "mean": (0, 0, 0), "std": (1, 0, 1)}, "std.1: must be greater"),
    ],
    ids=["name", "weights", "mean alone", "no deviation"],
)
def test_mistakes_name_their_place(settings: dict[str, object], message: str) -> None:
    with pytest.raises((SpaceError, UserError), match=message):
        build_classifier(validate(ClassifierSettings, settings, "task.model", SpaceError), 10)
