"""timm's and torchvision's models: which there are, what images they expect, and their weights."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from autocomp.errors import UserError, nearest
from autocomp.models.weights import PLACE

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of the channels of pixels in [0, 1]."""
WITH_AUXILIARY = ("googlenet", "inception_v3")
"""torchvision's nets that have classifiers on the way, for training alone."""
PROBE_PIXELS = 128
"""The nets of torchvision's that take images of any size take these."""
IMAGENET: Normalization = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# weights converted from TensorFlow Lite were trained on (pixel - 127) / 128
TF_LITE: Normalization = ((127 / 255,) * 3, (128 / 255,) * 3)


def is_torchvision(name: str, place: str, own: Collection[str]) -> bool:
    """Whether torchvision has the model `name`; `UserError` about `place` if timm has not either.

    `own` are the names that we have beside theirs.
    """
    if _has_torchvision(name):
        return True
    timm, models = _libraries()
    architecture, dot, tag = name.partition(".")
    if architecture in timm.list_models():
        if dot:
            _check_tag(architecture, tag, place)
        return False
    # all thousand would help nobody
    close = nearest(name, {*own, *models.list_models(module=models), *timm.list_models()})
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    rule = f"must be {', '.join(own)} or a torchvision or timm model"
    raise UserError(f"{place}: {rule}, but got {name!r}{hint}")


def _check_tag(architecture: str, tag: str, place: str) -> None:
    timm, _ = _libraries()
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*")]
    if tag not in tags:
        raise UserError(
            f"{place}: must have a tag that timm has, one of {', '.join(tags) or 'none'}, "
            f"but got {f'{architecture}.{tag}'!r}"
        )


def torchvision_net(name: str, pretrained: bool = False, **how: Any) -> nn.Module:
    """A classifier of torchvision's; `UserError` if its weights cannot be fetched."""
    _, models = _libraries()
    if name in WITH_AUXILIARY:
        # their published weights expect pixels that the net itself scales anew
        how = {"transform_input": True, **how}
        if not pretrained:
            how = {"init_weights": True, **how}  # they warn where it is not said
    with _fetching():
        net: nn.Module = models.get_model(name, weights="DEFAULT" if pretrained else None, **how)
    return net


def torchvision_weights(name: str) -> dict[str, Any]:
    """The tensors of torchvision's best weights of a classifier; `UserError` as above."""
    _, models = _libraries()
    with _fetching():
        values: dict[str, Any] = models.get_model_weights(name).DEFAULT.get_state_dict(
            check_hash=True
        )
    return values


def timm_net(name: str, pretrained: bool, **how: Any) -> nn.Module:
    """A model of timm's; `UserError` if its weights cannot be fetched, or there are none."""
    timm, _ = _libraries()
    if pretrained and not timm.models.is_model_pretrained(name):
        close = nearest(name, {one.partition(".")[0] for one in timm.list_pretrained()})
        hint = f"; it has those of {', '.join(map(repr, close))}" if close else ""
        raise UserError(
            f"{PLACE}: must be a path or none for {name!r}, of which timm has no weights, but got "
            f"'default'{hint}"
        )
    with _fetching():
        net: nn.Module = timm.create_model(name, pretrained=pretrained, **how)
    return net


def timm_maps(name: str, pretrained: bool) -> nn.Module:
    """A model of timm's without its classifier; (B, 3, H, W) -> (B, C, h, w)."""
    try:
        return timm_net(name, pretrained, num_classes=0, global_pool="")
    except UserError:  # of its weights
        raise
    except (AssertionError, RuntimeError, TypeError, ValueError) as failure:
        raise UserError(
            f"task.model.backbone: must compute feature maps, but timm cannot build {name!r} "
            f"without pooling: {' '.join(str(failure).split()) or type(failure).__name__}"
        ) from None


def outline(name: str) -> nn.Module:
    """A library's whole model of that name, with random weights: what layers and shapes it has."""
    with torch.random.fork_rng():  # what is built after it has the numbers it would have had
        return torchvision_net(name) if _has_torchvision(name) else timm_net(name, False)


def library_normalization(name: str) -> Normalization:
    """What the images were normalised by that the library's own weights were trained on."""
    timm, models = _libraries()
    if _has_torchvision(name):
        # the presets of networks for classification all have both
        transforms = models.get_model_weights(name).DEFAULT.transforms()
        return tuple(transforms.mean), tuple(transforms.std)
    if "tf_" in name and "lite" in name:
        return TF_LITE
    config = timm.get_pretrained_cfg(name).to_dict()
    return tuple(config["mean"]), tuple(config["std"])


def torchvision_maps(name: str, pretrained: bool, image_size: int) -> GraphModule:
    """A classifier of torchvision's, cut after its last feature map; (B, 3, H, W) -> (B, C, h, w).

    Module names stay as they were. `UserError` if it has no such maps, or none of `image_size`.
    """
    from torch.fx.passes.shape_prop import ShapeProp
    from torchvision.models import VisionTransformer
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    net = torchvision_net(name, pretrained)
    if isinstance(net, VisionTransformer):
        raise UserError(
            f"task.model.backbone: must compute feature maps, but {name!r}, a vision transformer, "
            "does not"
        )
    net.eval()
    side = _side(net, name, image_size)
    with warnings.catch_warnings():
        # that more is computed in training, by classifiers on the way, which are cut off
        warnings.filterwarnings("ignore", "NOTE: The nodes obtained by tracing", UserWarning)
        names = get_graph_node_names(net)[1]
        traced: GraphModule = create_feature_extractor(net, return_nodes=[names[-1]])
    with torch.no_grad():
        ShapeProp(traced).propagate(torch.zeros(1, 3, side, side))
    maps = [node for node in traced.graph.nodes if _is_map(node, traced)]
    if not maps:
        raise UserError("task.model.backbone: must compute a feature map, but it never does")
    (output,) = (node for node in traced.graph.nodes if node.op == "output")
    output.args = (maps[-1],)
    traced.graph.eliminate_dead_code()
    # torchvision's own graph module swaps in another graph, which was not cut, for training
    return GraphModule(net, traced.graph, type(net).__name__).train()


def _side(net: nn.Module, name: str, image_size: int) -> int:
    """Pixels of images that the net takes, (B, 3, H, W); `UserError` if of neither of two sizes."""
    for pixels in (PROBE_PIXELS, image_size):
        try:
            with torch.no_grad():
                net(torch.zeros(1, 3, pixels, pixels))
        except (RuntimeError, ValueError, AssertionError):
            continue
        return pixels
    raise UserError(
        f"task.data.image_size: must be one that {name!r} takes, but it takes neither {image_size} "
        f"nor {PROBE_PIXELS}; most that take one size alone take 224"
    )


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


@contextmanager
def _fetching() -> Iterator[None]:
    try:
        yield
    except OSError as failure:  # so are those of urllib and of huggingface_hub
        reason = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
        raise UserError(
            f"{PLACE}: must be a path or none where they cannot be fetched, but got 'default': "
            f"{reason}"
        ) from None


def _has_torchvision(name: str) -> bool:
    _, models = _libraries()
    return name in models.list_models(module=models)


def _libraries() -> tuple[Any, Any]:
    """timm and torchvision's models, which take seconds to load."""
    from autocomp.models.torchvision_compat import prepare

    prepare()
    import timm
    from torchvision import models

    return timm, models
