"""Backbones of three sources: a grid of features under the library's own names."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from autocomp.data.images import read_image
from autocomp.errors import UserError
from autocomp.models.backbones import TinyResNet, build_backbone
from autocomp.models.libraries import IMAGENET, TF_LITE, outline

DATA = Path(os.environ.get("AUTOCOMP_DATA", Path(__file__).parents[3] / "shared" / "data"))
LITE = DATA / "weights" / "tf_efficientnet_lite0.safetensors"
PHOTOS = DATA / "coco128" / "images"


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("name", "channels", "stride", "normalization", "known"),
    [
        ("tiny_resnet", 128, 8, IMAGENET, "layers.1.conv2.weight"),
        ("resnet18", 512, 32, IMAGENET, "layer4.1.conv2.weight"),
        ("mobilenet_v2", 1280, 32, IMAGENET, "features.18.1.running_var"),
        ("vgg11", 512, 32, IMAGENET, "features.18.weight"),
        ("tf_efficientnet_lite0", 1280, 32, TF_LITE, "blocks.6.0.conv_pwl.weight"),
    ],
    ids=["ours", "torchvision", "torchvision without a shortcut", "pooled to 7x7", "timm"],
)
def test_features_are_a_grid(
    name: str, channels: int, stride: int, normalization: object, known: str, training: bool
) -> None:
    net, found = build_backbone(name, "none", 64)
    with torch.no_grad():
        features = net.train(training)(torch.rand(2, 3, 64, 96))
    assert features.shape == (2, channels, 64 // stride, 96 // stride)
    assert found == normalization
    assert known in net.state_dict()


def test_torchvision_weights_load_under_their_own_names() -> None:
    from torchvision import models

    torch.manual_seed(0)
    dense = models.resnet18(weights=None).eval()
    net, _ = build_backbone("resnet18", "none", 64)
    net.load_state_dict({n: t for n, t in dense.state_dict().items() if not n.startswith("fc.")})
    pooled = net.eval()(torch.ones(1, 3, 64, 64)).mean((2, 3))
    torch.testing.assert_close(dense.fc(pooled), dense(torch.ones(1, 3, 64, 64)))


def test_residual_blocks_halve_the_resolution_and_keep_the_rest() -> None:
    net = TinyResNet()
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 128, 4, 4)
    assert sum(p.numel() for p in net.parameters()) < 350_000


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet1", "none", "task.model.backbone: must be tiny_resnet or a torchvision or timm"),
        ("resnet1", "none", "did you mean 'resnet18' or"),
        (
            "resnet18.none",
            "none",
            "task.model.backbone: must have a tag that timm has, one of a1_in",
        ),
        ("resnet18.", "none", "task.model.backbone: must have a tag that timm has, one of a1_in"),
        (
            "lcnet_035",
            "default",
            "task.model.weights: must be a path or none for 'lcnet_035', of which timm has no "
            "weights, but got 'default'; it has those of 'lcnet_0",
        ),
        (
            "tf_efficientnet_b0_ns",
            "none",
            "task.model.backbone: must be tiny_resnet or a torchvision or timm",
        ),
        (
            "inception_next_tiny",
            "none",
            "task.model.backbone: must compute feature maps, but timm cannot build 'inception_",
        ),
        ("vit_b_16", "none", "must compute feature maps, but 'vit_b_16', a vision transformer"),
        ("maxvit_t", "none", "task.data.image_size: must be one that 'maxvit_t' takes, but it tak"),
        ("tiny_resnet", "default", "task.model.weights: must be none or a path for 'tiny_resnet'"),
        (
            "tiny_resnet",
            "no/such/file",
            "task.model.weights: must be default, none or a safeten",
        ),
        ("tiny_resnet", "${NO_SUCH_VARIABLE}/w", "variable NO_SUCH_VARIABLE must be set"),
    ],
    ids=[
        "unknown",
        "nearest",
        "tag",
        "no tag",
        "no weights",
        "a name of old",
        "pooled",
        "no maps",
        "size",
        "no default",
        "no file",
        "no variable",
    ],
)
def test_what_cannot_be_built_says_so_in_a_line(name: str, weights: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_backbone(name, weights, 64)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("task.") == 1, "one mistake inside another"
    assert str(caught.value).count("'resnet18'") <= 1


def test_a_weights_file_is_loaded_whole(tmp_path: Path) -> None:
    wanted = {name: tensor + 1 for name, tensor in TinyResNet().state_dict().items()}
    save_file(wanted, tmp_path / "w.safetensors")
    net, _ = build_backbone("tiny_resnet", str(tmp_path / "w.safetensors"), 64)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "regnet_y_400mf",
        "googlenet",
        "convnext_tiny",
        "maxvit_t",
        "lcnet_035",
        "repvit_m0_9",
        "levit_conv_128s",
    ],
)
def test_a_library_s_whole_file_fills_its_backbone(name: str, tmp_path: Path) -> None:
    """Of classifiers, which a backbone has not, wherever in the net they lie."""
    path = tmp_path / "w.safetensors"
    whole = random_outline(name)
    save_file(whole, path)
    net, _ = build_backbone(name, str(path), 224)
    own = {key: value for key, value in net.state_dict().items() if "_constant" not in key}
    assert all(torch.equal(value, whole[key]) for key, value in own.items())


def test_a_backbone_sees_the_pixels_that_its_weights_were_trained_on() -> None:
    """GoogLeNet scales them anew by itself where its weights are the published ones."""
    net, _ = build_backbone("googlenet", "none", 64)
    seen: list[torch.Tensor] = []
    first = next(one for one in net.modules() if isinstance(one, nn.Conv2d))
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    net.eval()(torch.zeros(1, 3, 64, 64))
    expected = [(mean - 0.5) / 0.5 for mean in IMAGENET[0]]
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.tensor(expected))


def random_outline(name: str) -> dict[str, torch.Tensor]:
    return {
        key: torch.randn(value.shape).to(value.dtype)
        for key, value in outline(name).state_dict().items()
    }


def test_another_head_than_the_library_s_is_left_out_too(tmp_path: Path) -> None:
    values = random_outline("resnet18")
    del values["fc.weight"], values["fc.bias"]
    save_file({**values, "fc.1.weight": torch.zeros(7, 512)}, tmp_path / "w.safetensors")
    net, _ = build_backbone("resnet18", str(tmp_path / "w.safetensors"), 64)
    assert torch.equal(net.state_dict()["conv1.weight"], values["conv1.weight"])


def test_a_net_of_one_size_is_cut_at_that_size(capfd: pytest.CaptureFixture[str]) -> None:
    net, _ = build_backbone("maxvit_t", "none", 224)
    assert net.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 512, 7, 7)
    assert capfd.readouterr().err == "", "torch prints what fails to run"


@pytest.mark.parametrize("surplus", ["layers.2.conv1.weight", "classifier.weight"])
def test_weights_of_layers_that_it_has_not_are_refused(surplus: str, tmp_path: Path) -> None:
    more = {**TinyResNet().state_dict(), surplus: torch.zeros(2)}
    save_file(more, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=rf"1 are of layers that it has not, '{surplus}'"):
        build_backbone("tiny_resnet", str(tmp_path / "w.safetensors"), 64)


@pytest.mark.parametrize(
    ("name", "function"),
    [("resnet18", "torchvision.models.get_model"), ("lcnet_050", "timm.create_model")],
    ids=["torchvision", "timm"],
)
def test_weights_that_cannot_be_fetched_are_said_so_in_a_line(
    name: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route\nto host")

    monkeypatch.setattr(function, refuse)
    with pytest.raises(UserError, match=r"^task\.model\.weights: .* cannot be fetched") as caught:
        build_backbone(name, "default", 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["absent", "shape"])
def test_a_weights_file_that_lacks_some_is_refused(tmp_path: Path, fault: str) -> None:
    tensors = TinyResNet().state_dict()
    del tensors["conv_stem.weight"]
    if fault == "shape":
        tensors["conv_stem.weight"] = torch.zeros(24, 3, 5, 5)
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"1 are absent or of another shape, 'conv_stem.weight'"):
        build_backbone("tiny_resnet", str(tmp_path / "w.safetensors"), 64)


@pytest.mark.skipif(not LITE.exists(), reason="no weights in $AUTOCOMP_DATA/weights")
def test_real_weights_fill_every_tensor() -> None:
    net, _ = build_backbone("tf_efficientnet_lite0", str(LITE), 64)
    stored = load_file(LITE)
    learned = [n for n in net.state_dict() if not n.endswith("num_batches_tracked")]
    assert all(torch.equal(net.state_dict()[name], stored[name]) for name in learned)


@pytest.mark.skipif(not (LITE.exists() and PHOTOS.exists()), reason="no photos or weights")
def test_photos_look_to_the_first_norm_as_those_it_was_trained_on() -> None:
    """With another normalisation than in training the statistics of the first BatchNorm are off."""
    net, normalization = build_backbone("tf_efficientnet_lite0", str(LITE), 64)
    photos = sorted(path for path in PHOTOS.rglob("*.jpg"))[:24]
    pixels = np.stack([read_image(path.read_bytes(), 128) for path in photos])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255

    def distance(mean: tuple[float, ...], std: tuple[float, ...]) -> float:
        norm = net.get_submodule("bn1")
        assert isinstance(norm, nn.BatchNorm2d)
        shape = (1, 3, 1, 1)
        normed = (images - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
        with torch.no_grad():
            seen = net.get_submodule("conv_stem")(normed)
        live = norm.running_var > 1e-3
        ratio = seen.var((0, 2, 3))[live] / norm.running_var[live]
        return float(ratio.log().abs().median())

    own, other = distance(*normalization), distance(*IMAGENET)
    assert own < 0.3 < other
