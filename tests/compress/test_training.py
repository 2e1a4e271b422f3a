"""Quantisation-aware training: what is trained through is what the model then holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocomp.compress.formats import Compressed
from autocomp.compress.training import FakeQuantized, RunningRange, fake_quantized, rounded
from autocomp.policy import Quantize


class Net(nn.Module):
    """A convolution with a norm, a tied head, and a layer that calls a function on its weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.embedding = nn.Embedding(20, 32)
        self.gate = nn.Linear(32, 32)
        self.head = nn.Linear(32, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, images: Tensor, words: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(images))).mean(dim=(2, 3)) + self.embedding(words)
        return self.head(functional.linear(x, self.gate.weight, self.gate.bias))


IMAGES = torch.randn(6, 4, 10, 10, generator=torch.Generator().manual_seed(1))
WORDS = torch.arange(6)
STEP = Quantize(layers="**", bits={"conv": 4, "embedding": 3, "gate": 2}, qat=True)


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def regime(net: Net) -> FakeQuantized:
    regime, skipped = fake_quantized(Compressed(net), STEP)
    assert skipped == []
    return regime


def forward(net: Net, regime: FakeQuantized) -> Tensor:
    with regime.active(net):
        return net(IMAGES, WORDS)


def test_forward_passes_read_rounded_weights_wherever_they_are_read(
    net: Net, regime: FakeQuantized
) -> None:
    net.eval()
    regime.ranges.clear()  # of activations: weights alone
    found = forward(net, regime)
    plain = net(IMAGES, WORDS)
    assert not torch.allclose(found, plain, atol=1e-3)
    with torch.no_grad():
        for name, how in regime.formats.items():
            weight = net.get_parameter(name)
            weight.copy_(rounded(weight, how))
    torch.testing.assert_close(found, net(IMAGES, WORDS))


def test_gradients_pass_straight_through(net: Net, regime: FakeQuantized) -> None:
    forward(net, regime).square().mean().backward()
    for name in regime.formats:
        gradient = net.get_parameter(name).grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_nothing_is_rounded_outside_of_a_pass(net: Net, regime: FakeQuantized) -> None:
    net.eval()
    before = net(IMAGES, WORDS)
    forward(net, regime)
    assert torch.equal(net(IMAGES, WORDS), before)
    other = Net().eval()  # a teacher, say: its weights are others
    expected = other(IMAGES, WORDS)
    with regime.active(net):
        assert torch.equal(other(IMAGES, WORDS), expected)


def test_it_leaves_the_codes_that_the_next_pass_would_have_read(
    net: Net, regime: FakeQuantized
) -> None:
    values = {name: rounded(net.get_parameter(name), how) for name, how in regime.formats.items()}
    regime.finish(net)
    assert set(regime.compressed.quantized) == set(values)
    for name, tensor in regime.compressed.quantized.items():
        assert tensor.format == regime.formats[name]
        assert torch.equal(tensor.dequantize(), values[name])
        assert torch.equal(net.get_parameter(name), values[name])
    assert net.head.weight is net.embedding.weight


def test_half_precision_is_trained_through_as_well(net: Net) -> None:
    compressed = Compressed(net)
    regime, _ = fake_quantized(compressed, Quantize(layers="gate", bits=16, qat=True))
    found = forward(net.eval(), regime)
    regime.finish(net)
    assert compressed.halved == {"gate.weight"}
    torch.testing.assert_close(found, net(IMAGES, WORDS))


def test_training_finds_weights_that_suit_their_rounding() -> None:
    losses = {}
    for qat in (False, True):
        net = Net()
        regime, _ = fake_quantized(Compressed(net), STEP)
        wanted = Net().eval()(IMAGES, WORDS).detach() * 3
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(40):
            found = forward(net, regime) if qat else net(IMAGES, WORDS)
            loss = functional.mse_loss(found, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        net.train()
        losses[qat] = functional.mse_loss(forward(net, regime), wanted).item()
    assert losses[True] < 0.8 * losses[False]


def test_ranges_and_statistics_are_frozen_late(net: Net, regime: FakeQuantized) -> None:
    net.train()
    forward(net, regime)
    regime.after_step(net, 0.5)
    assert net.norm.training
    regime.after_step(net, 0.9)
    assert not net.norm.training
    observed = regime.ranges["conv.weight"]
    low, high = observed.low, observed.high
    with regime.active(net):
        net(IMAGES * 10, WORDS)
    assert (observed.low, observed.high) == (low, high)


def test_a_running_range_follows_slowly_and_holds_zero() -> None:
    observed = RunningRange()
    observed.see(torch.tensor([1.0, 2.0]))
    assert (observed.low, observed.high) == (0.0, 2.0)
    observed.see(torch.tensor([-1.0, 4.0]))
    assert (observed.low, observed.high) == pytest.approx((-0.1, 2.2))
    x = torch.linspace(-0.5, 3, 50)
    error = (observed.round(x) - x.clamp(observed.low, observed.high)).abs().max()
    assert error < 0.03
    assert RunningRange().round(torch.zeros(3)).tolist() == [0, 0, 0]


def test_it_says_which_weights_are_not_trained(regime: FakeQuantized) -> None:
    names = set(regime.formats)
    assert regime.idle(names | {"gate.bias"}) is None
    line = regime.idle(names - {"conv.weight"})
    assert line is not None
    assert line.startswith("quantize with qat rounds conv.weight and 0 more as they are")
