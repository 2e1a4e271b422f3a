"""Convolutional backbones, from image to a grid of features: ours, torchvision's, timm's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from autocomp.errors import UserError, nearest
from autocomp.models.weights import absent_tensors, read_weights

PROBE_PIXELS = 128
"""Every torchvision net takes images of this size, if not of half of it."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# weights converted from TensorFlow Lite were trained on (pixel - 127) / 128
TF_LITE = ((127 / 255,) * 3, (128 / 255,) * 3)

Normalization = tuple[tuple[float, ...], tuple[float, ...]]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, 1512.03385; halves the resolution when stride is 2."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = self.make_shortcut(channels_in, channels, stride)

    def make_shortcut(self, channels_in: int, channels: int, stride: int) -> nn.Module:
        """What gives the input the output's shape: nothing where it has it."""
        if stride == 1 and channels_in == channels:
            return nn.Sequential()
        return nn.Sequential(
            nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class TinyResNet(nn.Module):
    """A residual network for small images: stride 8, 128 channels, 0.3 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 24, 3, 2, 1, bias=False)
        self.bn_stem = nn.BatchNorm2d(24)
        widths = ((24, 48), (48, 128))
        self.layers = nn.Sequential(*(ResidualBlock(a, b, stride=2) for a, b in widths))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(torch.relu(self.bn_stem(self.conv_stem(x))))  # type: ignore[no-any-return]


BACKBONES: dict[str, Callable[[], nn.Module]] = {"tiny_resnet": TinyResNet}


def build_backbone(name: str, weights: str) -> tuple[nn.Module, Normalization]:
    """The backbone called `name` and the mean and deviation (of pixels in [0, 1]) it expects.

    It maps (B, 3, H, W) to features (B, C, h, w). `weights` is `default` (the library's own),
    `none`, or the path of a safetensors file with the library's key names.
    """
    pretrained = weights == "default"
    normalization: Normalization = IMAGENET
    if name in BACKBONES:
        if pretrained:
            raise UserError(
                f"task.model.weights: must be none or a path for {name!r}, but got 'default'"
            )
        net = BACKBONES[name]()
    else:
        net, normalization = _library_backbone(name, pretrained)
    if weights not in ("default", "none"):
        _load_weights(net, weights)
    return net, normalization


def _library_backbone(name: str, pretrained: bool) -> tuple[nn.Module, Normalization]:
    from autocomp.models.torchvision_compat import prepare

    prepare()
    import timm
    from torchvision import models

    if name in models.list_models(module=models):
        return _torchvision(
            models.get_model(name, weights="DEFAULT" if pretrained else None)
        ), IMAGENET
    if not timm.is_model(name):
        known = {*BACKBONES, *models.list_models(module=models), *timm.list_models()}
        raise UserError(_unknown_backbone(name, known))
    net = timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="")
    return net, timm_normalization(name, net.pretrained_cfg)


def timm_normalization(name: str, config: dict[str, Any]) -> Normalization:
    """The mean and deviation that timm's weights of this name were trained with."""
    if "tf_" in name and "lite" in name:
        return TF_LITE
    return tuple(config["mean"]), tuple(config["std"])


def _unknown_backbone(name: str, known: Iterable[str]) -> str:
    """Like `errors.unknown`, but for the thousand known names, which would help nobody."""
    close = nearest(name, known)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    rule = "must be tiny_resnet or a torchvision or timm model"
    return f"task.model.backbone: {rule}, but got {name!r}{hint}"


def _torchvision(net: nn.Module) -> GraphModule:
    """Cut a torchvision classifier after its last feature map; module names stay as they were."""
    from torch.fx.passes.shape_prop import ShapeProp
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    net.eval()
    names = get_graph_node_names(net)[1]
    traced: GraphModule = create_feature_extractor(net, return_nodes=[names[-1]])
    with torch.no_grad():
        ShapeProp(traced).propagate(torch.zeros(1, 3, PROBE_PIXELS, PROBE_PIXELS))
    maps = [node for node in traced.graph.nodes if _is_map(node, traced)]
    if not maps:
        raise UserError("task.model.backbone: must compute a feature map, but it never does")
    (output,) = (node for node in traced.graph.nodes if node.op == "output")
    output.args = (maps[-1],)
    traced.graph.eliminate_dead_code()
    # torchvision's own graph module swaps in another graph, which was not cut, for training
    return GraphModule(net, traced.graph, type(net).__name__).train()


def _is_map(node: Node, traced: GraphModule) -> bool:
    """True if `node` computes features (B, C, h, w), and not the pooled ones of a classifier."""
    if node.op not in ("call_module", "call_function", "call_method"):
        return False
    if node.op == "call_module":
        layer = traced.get_submodule(str(node.target))
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            return False
    shape: Sequence[int] = getattr(node.meta.get("tensor_meta"), "shape", ())
    return len(shape) == 4 and shape[-1] > 1


def _load_weights(net: nn.Module, written: str) -> None:
    values = read_weights(written)
    missing = absent_tensors(net, values)
    if missing:
        raise UserError(
            f"task.model.weights: {written} must hold every weight of the backbone, "
            f"but {len(missing)} are absent or of another shape, {missing[0]!r} first"
        )
    wanted = net.state_dict()
    net.load_state_dict({name: values[name] for name in wanted if name in values}, strict=False)
