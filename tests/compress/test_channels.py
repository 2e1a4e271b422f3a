"""Pruned models compute what the dense one does without the channels; refusals say why."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import autocomp.models.torchvision_compat  # noqa: F401
from autocomp.compress.channels import channel_layers, prune_channels_
from autocomp.errors import PolicyError
from autocomp.policy import PruneChannels

IMAGES = torch.randint(0, 256, (2, 64, 64, 3), generator=torch.Generator().manual_seed(0)).byte()
SMALL = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Encoder(nn.Module):
    """uint8 images (B, H, W, 3) to features (B, positions, 32), as a captioner does."""

    def __init__(self, backbone: nn.Module, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Linear(channels, 32)

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images.permute(0, 3, 1, 2).float() / 255)  # (B, C, h, w)
        return self.projection(features.flatten(2).transpose(1, 2))


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 24, 3, padding=1), nn.BatchNorm2d(24)
        self.conv2, self.bn2 = nn.Conv2d(24, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))


def residual() -> nn.Sequential:
    """Convolutions 0 and 2.conv2 are coupled; 2.conv1 is free; 4 has no norm; 6 is the output."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), Block(16), nn.ReLU(inplace=True)
    )
    model.extend([nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 5, 1)])
    return distinct(model)


def distinct(model: nn.Module) -> nn.Module:
    """BatchNorm statistics no two channels share, so that survivors can be recognised."""
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            size = layer.num_features
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.copy_(torch.randn(size, generator=generator) * 0.1)
            layer.running_var.copy_(torch.rand(size, generator=generator) + 0.5)
            layer.weight.data.copy_(torch.rand(size, generator=generator) + 0.5)
            layer.bias.data.copy_(torch.randn(size, generator=generator) * 0.1)
    return model.eval()


def timm_model(name: str) -> nn.Module:
    import timm

    model = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
    return Encoder(model, model.num_features)


def torchvision_resnet18() -> nn.Module:
    from torchvision.models import resnet18

    return Encoder(nn.Sequential(*list(resnet18(weights=None).children())[:-2]), 512)


def mobilenet_v2() -> nn.Module:
    from torchvision.models import mobilenet_v2

    return Encoder(mobilenet_v2(weights=None).features, 1280)


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "timm-resnet18": lambda: timm_model("resnet18"),
    "lite0": lambda: timm_model("tf_efficientnet_lite0"),
    "resnet18": torchvision_resnet18,
    "mobilenet_v2": mobilenet_v2,
}


def step(**changes: Any) -> PruneChannels:
    return PruneChannels(**{"layers": "**", "ratio": 0.5, "round_to": 1, **changes})


def widths(model: nn.Module) -> dict[str, int]:
    return {n: m.out_channels for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}


def macs(model: nn.Module, inputs: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs)
    return counter.get_total_flops() // 2


@torch.no_grad()
def without_removed(dense: nn.Module, pruned: nn.Module) -> nn.Module:
    """The dense model with gamma and beta zero for every channel the pruned one lacks."""
    masked = copy.deepcopy(dense)
    for name, layer in masked.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            stays = torch.isin(layer.running_mean, pruned.get_submodule(name).running_mean)
            layer.weight[~stays] = 0
            layer.bias[~stays] = 0
    return masked


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(
    ("ratio", "scope", "criterion"),
    [(0.3, "local", "l2"), (0.5, "global", "bn_variance")],
    ids=["local", "global"],
)
def test_real_backbone_computes_the_same_without_the_channels(
    name: str, ratio: float, scope: str, criterion: str
) -> None:
    torch.manual_seed(0)
    dense = distinct(ENCODERS[name]())
    pruned = copy.deepcopy(dense)
    skipped = prune_channels_(
        pruned,
        step(layers="backbone.*", ratio=ratio, scope=scope, criterion=criterion, round_to=8),
        IMAGES,
    )
    assert all(line.endswith("channels, rounded to 8, removes none") for line in skipped)
    assert pruned.get_submodule("projection").in_features < dense.projection.in_features
    assert macs(pruned, IMAGES) < (1 - ratio / 2) * macs(dense, IMAGES)
    before, after = widths(dense), widths(pruned)
    assert all(after[one] % 8 == 0 or after[one] == before[one] for one in before)
    removed = sum(before.values()) - sum(after.values())
    assert removed / sum(before.values()) == pytest.approx(ratio, abs=0.06)
    with torch.no_grad():
        expected, outputs = without_removed(dense, pruned)(IMAGES), pruned(IMAGES)
        assert (expected - dense(IMAGES)).abs().max() > 0.1 * expected.abs().max()
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())
    pruned.train()(IMAGES).sum().backward()


@pytest.mark.parametrize(("name", "count"), [("lite0", 33), ("resnet18", 20)])
def test_channel_layers_of_real_backbones(name: str, count: int) -> None:
    model = ENCODERS[name]()
    found = channel_layers(model, IMAGES)
    assert len(found) == count
    assert set(found) <= set(widths(model))
    assert [name for name in widths(model) if name in found] == found


def test_channel_layers_leave_out_the_output() -> None:
    assert channel_layers(residual(), SMALL) == ["0", "2.conv1", "2.conv2", "4"]


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("ratio", [0.0, {"0": 0.0, "2": 0.0}], ids=["one", "by-unit"])
def test_ratio_zero_is_the_identity(scope: str, ratio: Any) -> None:
    model = residual()
    before = copy.deepcopy(model.state_dict())
    assert prune_channels_(model, step(ratio=ratio, scope=scope), SMALL) == []
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_ratio_by_unit_and_mean_of_coupled_layers() -> None:
    model = residual()
    ratio = {"0": 0.25, "2.conv2": 0.75, "2.conv1": 0.25}
    assert prune_channels_(model, step(ratio=ratio), SMALL) == []
    assert widths(model) == {"0": 8, "2.conv1": 18, "2.conv2": 8, "4": 32, "6": 5}


@pytest.mark.parametrize(("round_to", "width"), [(1, 15), (4, 16), (8, 16), (16, 16), (32, 24)])
def test_what_stays_is_rounded_up_and_never_above(round_to: int, width: int) -> None:
    model = residual()
    skipped = prune_channels_(model, step(layers="2.conv1", ratio=0.4, round_to=round_to), SMALL)
    assert widths(model)["2.conv1"] == width
    assert bool(skipped) == (width == 24)


def test_no_rounding_leaves_a_layer_empty() -> None:
    model = residual()
    prune_channels_(model, step(ratio=0.999), SMALL)
    assert widths(model) == {"0": 1, "2.conv1": 1, "2.conv2": 1, "4": 1, "6": 5}


def test_layers_outside_the_pattern_keep_their_filters() -> None:
    model = residual()
    before = copy.deepcopy(model.state_dict())
    assert prune_channels_(model, step(layers="4"), SMALL) == []
    changed = {n for n, tensor in model.state_dict().items() if tensor.shape != before[n].shape}
    assert changed == {"4.weight", "4.bias", "6.weight"}


@pytest.mark.parametrize("exclude", ["2.conv2", "2.bn2"])
def test_excluded_layer_holds_back_what_is_coupled_to_it(exclude: str) -> None:
    model = residual()
    skipped = prune_channels_(model, step(exclude=exclude), SMALL)
    assert f"0: coupled to {exclude}, which is excluded" in skipped
    assert widths(model) == {"0": 16, "2.conv1": 12, "2.conv2": 16, "4": 16, "6": 5}


def test_output_is_skipped_with_a_reason() -> None:
    assert prune_channels_(residual(), step(), SMALL) == ["6: its channels are the model's output"]


def test_pattern_that_matches_nothing_lists_the_nearest() -> None:
    with pytest.raises(PolicyError, match=r"'2\.conv7' matches none; the nearest are 2\.conv"):
        prune_channels_(residual(), step(layers="2.conv7"), SMALL)


def test_criterion_without_its_batchnorm_names_the_layer() -> None:
    model = residual()
    with pytest.raises(PolicyError, match=r"'bn_scale' must have a BatchNorm .* '4' has none"):
        prune_channels_(model, step(criterion="bn_scale"), SMALL)
    prune_channels_(model, step(layers=["0", "2.*"], criterion="bn_scale"), SMALL)
    assert widths(model)["0"] == 8


def test_the_least_important_channels_go() -> None:
    model = residual()
    gamma = model.get_parameter("2.bn1.weight")
    statistics = model.get_buffer("2.bn1.running_mean").clone()
    with torch.no_grad():
        gamma[[1, 5, 20]] = 1e-3
    prune_channels_(model, step(layers="2.conv1", ratio=0.13, criterion="bn_scale"), SMALL)
    gone = ~torch.isin(statistics, model.get_buffer("2.bn1.running_mean"))
    assert gone.nonzero().flatten().tolist() == [1, 5, 20]


def test_global_scope_takes_from_the_weakest_layer() -> None:
    model = residual()
    with torch.no_grad():
        model.get_parameter("4.weight")[:24] *= 1e-4
    prune_channels_(model, step(layers=["2.conv1", "4"], ratio=24 / 56, scope="global"), SMALL)
    assert widths(model) == {"0": 16, "2.conv1": 24, "2.conv2": 16, "4": 8, "6": 5}


def test_random_is_seeded() -> None:
    def survivors(seed: int) -> Tensor:
        model = residual()
        prune_channels_(model, step(layers="4", criterion="random"), SMALL, seed=seed)
        return model.get_parameter("4.bias").detach()

    assert torch.equal(survivors(1), survivors(1))
    assert not torch.equal(survivors(1), survivors(2))


def test_taylor_removes_channels_the_loss_does_not_see() -> None:
    model = residual()
    bias = model.get_parameter("4.bias").detach().clone()
    with torch.no_grad():
        model.get_parameter("6.weight")[:, ::2] = 0
    batches = SMALL.split(1)

    def gradients() -> None:
        model.train()
        for batch in batches:
            model(batch).pow(2).sum().backward()

    model.requires_grad_(False)
    assert prune_channels_(model, step(layers="4", criterion="taylor"), SMALL, gradients) == []
    assert torch.equal(model.get_parameter("4.bias"), bias[1::2])
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_taylor_without_batches_is_an_error() -> None:
    with pytest.raises(PolicyError, match="must have calibration batches, but got none"):
        prune_channels_(residual(), step(criterion="taylor"), SMALL)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_modes_and_trainable_flags_are_kept(training: bool) -> None:
    model = residual().train(training)
    model[2].eval()
    model[4].requires_grad_(False)
    flags = {name: one.requires_grad for name, one in model.named_parameters()}
    modes = [layer.training for layer in model.modules()]
    prune_channels_(model, step(), SMALL)
    assert {name: one.requires_grad for name, one in model.named_parameters()} == flags
    assert [layer.training for layer in model.modules()] == modes


class PaddedShortcut(nn.Module):
    """The option-A shortcut of CIFAR ResNets: new channels are zeros around the old ones."""

    def __init__(self, pad: bool) -> None:
        super().__init__()
        self.pad = pad
        self.stem, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.last, self.head = nn.Conv2d(12, 16, 3, padding=1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        if self.pad:
            shortcut = F.pad(x, (0, 0, 0, 0, 4, 4))
        else:
            zeros = torch.zeros_like(x[:, :4])
            shortcut = torch.cat([zeros, x, zeros], dim=1)
        return self.head(F.relu(shortcut + self.last(F.relu(self.inner(x)))))


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 24, 1)
        self.third = nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)
        return self.third(F.relu(self.second(x)))


class Normalised(nn.Module):
    """A norm across channels between `first` and its reader."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 1), nn.GroupNorm(1, 16)
        self.second, self.third = nn.Conv2d(16, 24, 1), nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(F.relu(self.second(self.norm(self.first(x)))))


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=4), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 4, 1)
    )


@pytest.mark.parametrize(
    ("build", "refused", "pruned"),
    [
        (lambda: PaddedShortcut(True), {"stem", "last"}, {"inner"}),
        (lambda: PaddedShortcut(False), {"stem", "last"}, {"inner"}),
        (Shuffle, {"first"}, {"second"}),
        (Normalised, {"first"}, {"second"}),
        (grouped, {"0", "1"}, {"2"}),
    ],
    ids=["padded", "concatenated-zeros", "shuffled", "group-norm", "grouped"],
)
def test_channels_that_cannot_be_followed_are_refused(
    build: Callable[[], nn.Module], refused: set[str], pruned: set[str]
) -> None:
    model = build()
    before = widths(model)
    skipped = prune_channels_(model, step(exclude=["head", "third", "3"]), SMALL)
    assert {line.split(":")[0] for line in skipped} == refused
    assert {name for name, width in widths(model).items() if width < before[name]} == pruned
    assert channel_layers(build(), SMALL) == [name for name in before if name in pruned]


class Dense(nn.Module):
    """Concatenation of two convolutions, added to a third, then flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 12, 1)
        self.both, self.depthwise = nn.Conv2d(3, 20, 1), nn.Conv2d(20, 20, 3, groups=20)
        self.head = nn.Linear(20 * 36, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], dim=1) + self.both(x)
        return self.head(self.depthwise(F.relu(x)).flatten(1))


def test_concatenation_addition_depthwise_and_flatten() -> None:
    torch.manual_seed(0)
    model = Dense()
    assert prune_channels_(model, step(layers=["left", "right"], ratio=0.25), SMALL) == []
    assert widths(model) == {"left": 6, "right": 9, "both": 15, "depthwise": 15}
    assert model.head.in_features == 15 * 36
    assert model(SMALL).shape == (2, 4)


class MeetsInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(x + self.first(x))


def test_a_model_that_no_longer_fits_is_an_error() -> None:
    with pytest.raises(PolicyError, match="must compute what the model does without"):
        prune_channels_(MeetsInput(), step(layers="first"), SMALL)


def test_pruned_models_are_freed_at_once() -> None:
    alive = []
    gc.disable()
    try:
        for seed in range(3):
            model = residual()
            alive += [weakref.ref(model), weakref.ref(model[4]), weakref.ref(model[4].weight)]
            channel_layers(model, SMALL)
            prune_channels_(model, step(criterion="random"), SMALL, seed=seed)
            alive.append(weakref.ref(model[4].weight))
            del model
        assert [reference() for reference in alive] == [None] * len(alive)
    finally:
        gc.enable()
