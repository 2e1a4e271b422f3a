"""Quantisation-aware training: what is trained through is what the model then holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocomp.compress.formats import Compressed
from autocomp.compress.training import FakeQuantized, fake_quantized, rounded
from autocomp.errors import TrialStopped
from autocomp.policy import Quantize
from autocomp.retrain.precision import precision


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
WEIGHTS_ALONE = STEP.model_copy(update={"activation_bits": 32})


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


def test_forward_passes_read_rounded_weights_wherever_they_are_read(net: Net) -> None:
    net.eval()
    regime, _ = fake_quantized(Compressed(net), WEIGHTS_ALONE)
    found = forward(net, regime)
    plain = net(IMAGES, WORDS)
    assert not torch.allclose(found, plain, atol=1e-3)
    with torch.no_grad():
        for name, how in regime.formats.items():
            weight = net.get_parameter(name)
            weight.copy_(rounded(weight, how))
    torch.testing.assert_close(found, net(IMAGES, WORDS))


class Keyed(nn.Module):
    """Weights read by a keyword, by a method, and inside a function of PyTorch's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.linear(weight=self.first.weight, input=x) @ self.second.weight.T
        return self.attention(x, x, x)[0]


@pytest.mark.parametrize("layer", ["first", "second", "attention.out_proj"])
def test_no_weight_is_hidden(layer: str) -> None:
    net, x = Keyed().eval(), torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    step = Quantize(layers=layer, bits=2, qat=True, activation_bits=32)
    regime, skipped = fake_quantized(Compressed(net), step)
    assert skipped == []
    with regime.active(net):
        found = net(x)
    assert not torch.allclose(found, net(x), atol=1e-4)
    found.sum().backward()
    assert net.get_parameter(f"{layer}.weight").grad is not None
    regime.finish(net)
    torch.testing.assert_close(found, net(x))


def test_activations_that_nothing_sees_are_named() -> None:
    step = Quantize(layers="**", bits=4, qat=True)
    _, skipped = fake_quantized(Compressed(Keyed()), step)
    assert [line.split(",")[0] for line in skipped] == [
        "attention.in_proj_weight: left in fp32",
        "attention.out_proj: trained through the rounding of weights alone",
    ]


def test_a_pass_that_fails_leaves_the_weights_as_they_were(net: Net, regime: FakeQuantized) -> None:
    parameters = dict(net.named_parameters())
    with pytest.raises(TrialStopped, match="into conv became nan"), regime.active(net):
        net(IMAGES * float("nan"), WORDS)
    for name, parameter in net.named_parameters():
        assert parameter is parameters[name]
    assert net.head.weight is net.embedding.weight


def test_gradients_pass_straight_through(net: Net, regime: FakeQuantized) -> None:
    forward(net, regime).square().mean().backward()
    for name in regime.formats:
        gradient = net.get_parameter(name).grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_half_of_the_digits_are_enough_for_a_pass(net: Net, regime: FakeQuantized) -> None:
    wanted = forward(net, regime)
    with precision("bf16", torch.device("cpu")):
        found = forward(net, regime)
    found.square().mean().backward()
    assert (found - wanted).norm() < 0.05 * wanted.norm()
    gradients = [net.get_parameter(name).grad for name in regime.formats]
    assert all(one is not None and one.isfinite().all() for one in gradients)


def test_nothing_is_rounded_outside_of_a_pass(net: Net, regime: FakeQuantized) -> None:
    net.eval()
    before = net(IMAGES, WORDS)
    other = Net().eval()
    expected = other(IMAGES, WORDS)
    with regime.active(net):
        net(IMAGES, WORDS)
    assert torch.equal(net(IMAGES, WORDS), before)
    assert torch.equal(other(IMAGES, WORDS), expected)  # of the very tensor that was read rounded


def test_it_leaves_the_codes_that_the_next_pass_would_have_read(
    net: Net, regime: FakeQuantized
) -> None:
    forward(net, regime)
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
    around = regime.ranges["conv.weight"]
    before = [(one.low, one.high) for one in around]
    assert all(low < high for low, high in before)
    with regime.active(net):
        net(IMAGES * 10, WORDS)
    assert [(one.low, one.high) for one in around] == before


def test_it_says_which_weights_are_not_trained(regime: FakeQuantized) -> None:
    names = set(regime.formats)
    assert regime.idle(names | {"gate.bias"}) is None
    line = regime.idle(names - {"conv.weight"})
    assert line is not None
    assert line.startswith("quantize with qat rounds conv.weight untrained")
