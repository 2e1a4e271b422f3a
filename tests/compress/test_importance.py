"""Criteria rank channels whose importance is known by construction."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from autocomp.compress.importance import CRITERIA, Group, Member, measure_sensitivity
from autocomp.errors import PolicyError
from autocomp.policy import PruneChannels

SIZE = 4
ALL = torch.arange(SIZE)


def member(name: str, module: nn.Module, role: str, indices: torch.Tensor = ALL) -> Member:
    channels = torch.arange(SIZE).repeat_interleave(len(indices) // SIZE)
    return Member(name, module, role, indices, channels)  # type: ignore[arg-type]


@pytest.fixture
def layers() -> dict[str, nn.Module]:
    """A convolution, its norm and its reader, with weights that are easy to add up."""
    writer, norm, reader = nn.Conv2d(2, SIZE, 1), nn.BatchNorm2d(SIZE), nn.Conv2d(SIZE, 3, 1)
    with torch.no_grad():
        writer.weight.copy_(torch.tensor([[3.0, 4], [1, 0], [-6, 8], [0, 0]]).view(4, 2, 1, 1))
        norm.weight.copy_(torch.tensor([1.0, -2, 0.5, 0]))
        reader.weight.copy_(torch.tensor([1.0, 2, 0, 5]).expand(3, 4).reshape(3, 4, 1, 1))
    return {"writer": writer, "norm": norm, "reader": reader}


@pytest.fixture
def group(layers: dict[str, nn.Module]) -> Group:
    roles = {"writer": "out", "norm": "bn", "reader": "in"}
    members = tuple(member(name, layer, roles[name]) for name, layer in layers.items())
    return Group("writer", SIZE, members, sensitivity={})


def test_every_criterion_of_a_policy_is_there() -> None:
    schema = PruneChannels.model_json_schema()
    assert list(CRITERIA) == schema["properties"]["criterion"]["enum"]


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("l1", [7, 1, 14, 0]),
        ("l2", [5, 1, 10, 0]),
        ("bn_scale", [1, 2, 0.5, 0]),
        ("bn_variance", [1 * 3, 4 * 12, 0, 0]),
        ("group_norm", [(25 + 3 + 1) ** 0.5, (1 + 12 + 4) ** 0.5, 100.25**0.5, 75**0.5]),
    ],
)
def test_known_scores(criterion: str, expected: list[float], group: Group) -> None:
    torch.testing.assert_close(CRITERIA[criterion](group), torch.tensor(expected).float())


def test_coupled_filters_are_averaged(group: Group) -> None:
    other = nn.Conv2d(1, SIZE, 1)
    nn.init.constant_(other.weight, 2.0)
    both = Group("both", SIZE, (*group.members, member("other", other, "out")), {})
    torch.testing.assert_close(CRITERIA["l1"](both), torch.tensor([4.5, 1.5, 8.0, 1.0]))


def test_flattened_reader_adds_up_all_inputs_of_a_channel(group: Group) -> None:
    linear = nn.Linear(2 * SIZE, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 1, 2, 0, 0, 0, 3, 4]]))
    members = (*group.members[:2], member("linear", linear, "in", torch.arange(2 * SIZE)))
    scores = CRITERIA["bn_variance"](Group("flat", SIZE, members, {}))
    torch.testing.assert_close(scores, torch.tensor([2.0, 4 * 4, 0, 0]))


@pytest.mark.parametrize("kind", [nn.ConvTranspose2d, nn.Conv2d], ids=["transposed", "plain"])
def test_filters_are_found_along_the_right_axis(kind: type[nn.Conv2d]) -> None:
    writer, reader = kind(3, SIZE, 2, bias=False), kind(SIZE, 3, 2, bias=False)
    axis = 1 if kind is nn.ConvTranspose2d else 0
    with torch.no_grad():
        writer.weight.fill_(1.0).select(axis, 2).zero_()
        reader.weight.fill_(1.0).select(1 - axis, 2).zero_()
    members = (member("writer", writer, "out"), member("reader", reader, "in"))
    scores = CRITERIA["group_norm"](Group("g", SIZE, members, {}))
    torch.testing.assert_close(scores, torch.tensor([24.0, 24, 0, 24]).sqrt())


@pytest.mark.parametrize("criterion", ["bn_scale", "bn_variance"])
@pytest.mark.parametrize("norm", [None, nn.BatchNorm2d(SIZE, affine=False)], ids=["none", "plain"])
def test_missing_batchnorm_scale_names_the_layer(
    criterion: str, norm: nn.Module | None, layers: dict[str, nn.Module]
) -> None:
    members = [member("writer", layers["writer"], "out")]
    if norm is not None:
        members.append(member("norm", norm, "bn"))
    with pytest.raises(PolicyError, match=r"BatchNorm scale .* 'stem.conv' has none"):
        CRITERIA[criterion](Group("stem.conv", SIZE, tuple(members), {}))


def test_random_depends_on_the_seed_alone() -> None:
    def scores(seed: int) -> torch.Tensor:
        return CRITERIA["random"](Group("g", 50, (), {}, seed))

    assert torch.equal(scores(3), scores(3))
    assert not torch.equal(scores(3), scores(4))


def backward(layer: nn.Module, batches: list[torch.Tensor], targets: list[float]) -> None:
    for batch, target in zip(batches, targets, strict=True):
        (layer(batch).sum(dim=(0, 2, 3)) * target).sum().backward()


def test_sensitivity_sums_absolute_values_over_batches() -> None:
    layer = nn.Conv2d(2, SIZE, 1)
    batches = [torch.rand(2, 2, 3, 3) for _ in range(3)]
    run: Callable[[], None] = lambda: backward(layer, batches, [1.0, -1.0, 2.0])  # noqa: E731
    measured = measure_sensitivity({"layer": layer}, run)["layer"]
    with torch.no_grad():
        each = [layer(batch).sum(dim=(0, 2, 3)).abs() for batch in batches]
    torch.testing.assert_close(measured, each[0] + each[1] + 2 * each[2])
    assert layer.weight.grad is None
    assert not layer.weight._post_accumulate_grad_hooks


def test_sensitivity_of_filters_before_batch_statistics_is_zero() -> None:
    conv, norm = nn.Conv2d(2, SIZE, 1, bias=False), nn.BatchNorm2d(SIZE, eps=1e-8)
    model = nn.Sequential(conv, norm, nn.Hardswish())
    run: Callable[[], None] = lambda: backward(model, [torch.rand(4, 2, 8, 8)], [1.0])  # noqa: E731
    assert measure_sensitivity({"conv": conv}, run)["conv"].max() < 1e-3
    model.eval()
    assert measure_sensitivity({"conv": conv}, run)["conv"].max() > 1e-1


def test_taylor_averages_layers_and_ignores_readers(group: Group) -> None:
    known = {"writer": torch.tensor([1.0, 2, 3, 4]), "norm": torch.ones(4), "reader": torch.ones(3)}
    scores = CRITERIA["taylor"](Group("g", SIZE, group.members, known))
    torch.testing.assert_close(scores, torch.tensor([1.0, 1.5, 2.0, 2.5]))


def test_taylor_without_gradients_names_the_layer(group: Group) -> None:
    with pytest.raises(PolicyError, match="none reached 'writer'"):
        CRITERIA["taylor"](group)
