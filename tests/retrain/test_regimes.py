"""Gamma L1 adds strength x sign(gamma) to the gradient and so shrinks the scales."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_captioner, tiny_task
from torch import nn

from autocomp.errors import PolicyError
from autocomp.policy import GammaL1, Retrain
from autocomp.retrain.loop import retrain_
from autocomp.retrain.regimes import gamma_l1


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)
    )
    for norm in (net[1], net[3]):
        nn.init.normal_(norm.weight)
    return net


def test_its_gradient_is_strength_times_sign(net: nn.Sequential) -> None:
    regime = gamma_l1(net, GammaL1(layers="1", strength=0.25))
    loss = regime.loss(net, 0.0)
    assert loss is not None
    loss.backward()
    torch.testing.assert_close(net[1].weight.grad, 0.25 * net[1].weight.detach().sign())
    assert all(p.grad is None for n, p in net.named_parameters() if n != "1.weight")
    assert loss.item() == pytest.approx(0.25 * net[1].weight.abs().sum().item())


def test_it_follows_a_layer_whose_channels_are_removed(net: nn.Sequential) -> None:
    regime = gamma_l1(net, GammaL1(layers="**", strength=1.0))
    net[3].weight = nn.Parameter(torch.ones(2))
    loss = regime.loss(net, 0.0)
    assert loss is not None
    assert loss.item() == pytest.approx(net[1].weight.abs().sum().item() + 2)


@pytest.mark.parametrize(
    ("trainable", "idle"),
    [({"1.weight"}, False), ({"3.weight", "0.weight"}, False), ({"0.weight", "1.bias"}, True)],
)
def test_it_is_idle_where_no_scale_is_trained(
    trainable: set[str], idle: bool, net: nn.Sequential
) -> None:
    line = gamma_l1(net, GammaL1(layers="**")).idle(trainable)
    assert (line is not None) == idle


@pytest.mark.parametrize("layers", ["0", "nothing"])
def test_a_pattern_without_batch_norm_is_an_error(layers: str, net: nn.Sequential) -> None:
    with pytest.raises(PolicyError, match=r"gamma_l1\.layers: must match a BatchNorm layer"):
        gamma_l1(net, GammaL1(layers=layers))


def test_norms_that_were_dropped_are_not_missed(net: nn.Sequential) -> None:
    regime = gamma_l1(net, GammaL1(layers="**", strength=0.5))
    del net[3]
    loss = regime.loss(net, 0.0)
    assert loss is not None
    assert loss.item() == pytest.approx(0.5 * net[1].weight.abs().sum().item())
    del net[1:]
    assert regime.loss(net, 0.0) is None


@pytest.mark.usefixtures("tiny")
def test_scales_shrink_while_training() -> None:
    task = tiny_task()
    sums = []
    for strength in (0.0, 1.0):
        model = tiny_captioner(task)
        regime = gamma_l1(model, GammaL1(layers="encoder.backbone", strength=strength))
        step = Retrain(steps=6, lr=3e-3, batch_size=16, precision="fp32")
        retrain_(model, step, task, regimes=[regime])
        scales = [m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        sums.append(sum(scale.abs().sum().item() for scale in scales))
    assert sums[1] < 0.995 * sums[0]
