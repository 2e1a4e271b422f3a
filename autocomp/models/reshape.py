"""Give a freshly built dense model the shapes of a compressed one, so that its tensors load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from autocomp.errors import CheckpointError

Shapes = Mapping[str, Sequence[int]]


def reshape_(model: nn.Module, shapes: Shapes) -> None:
    """Resize the modules of `model` in place to `shapes`, by tensor name.

    Numbered layers none of whose tensors are named are removed. Tensors keep no values. A tensor
    of the model that is not named, or a named one it lacks, raises `CheckpointError`.
    """
    _drop_layers(model, shapes)
    tied = _tied(model)
    for name, module in model.named_modules():
        own = {key: shapes.get(f"{name}.{key}".strip(".")) for key in _tensor_names(module)}
        for key, shape in own.items():
            if shape is not None:
                _resize_tensor(module, key, shape)
        _update_attributes(module)
    for name, first in tied.items():
        owner, _, key = name.rpartition(".")
        setattr(model.get_submodule(owner), key, model.get_parameter(first))
        _update_attributes(model.get_submodule(owner))
    _check_names(model, shapes)


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What a model must keep to be rebuilt, by name: parameters, a shared one once, and buffers.

    Counters of BatchNorm batches serve training only and are left out.
    """
    kept = {name for name, _ in model.named_parameters()} | {
        name for name, _ in model.named_buffers() if not name.endswith("num_batches_tracked")
    }
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if name in kept}


def _drop_layers(model: nn.Module, shapes: Shapes) -> None:
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.ModuleDict):
            for index in list(module):
                if not any(key.startswith(f"{name}.{index}.") for key in shapes):
                    del module[index]


def _tied(model: nn.Module) -> dict[str, str]:
    """The later names of shared parameters, each with the first one."""
    first: dict[int, str] = {}
    later = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            later[name] = first[id(parameter)]
        else:
            first[id(parameter)] = name
    return later


def _tensor_names(module: nn.Module) -> list[str]:
    return [
        *(name for name, _ in module.named_parameters(recurse=False)),
        *(name for name, _ in module.named_buffers(recurse=False)),
    ]


def _resize_tensor(module: nn.Module, key: str, shape: Sequence[int]) -> None:
    old = getattr(module, key)
    if tuple(old.shape) == tuple(shape):
        return
    new = torch.zeros(tuple(shape), dtype=old.dtype)
    setattr(module, key, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)


def _update_attributes(module: nn.Module) -> None:
    """Make the sizes a module announces those of its tensors."""
    if isinstance(module, nn.Conv2d):
        depthwise = module.groups > 1 and module.weight.shape[1] == 1
        module.out_channels = module.weight.shape[0]
        module.groups = module.out_channels if depthwise else module.groups
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
        module.num_features = module.weight.shape[0]
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape


def _check_names(model: nn.Module, shapes: Shapes) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in tensors(model).items()}
    wrong = sorted(own.keys() ^ shapes.keys())
    if wrong:
        raise CheckpointError(
            f"config.json: tensors must be those of the model it describes, but {wrong[0]!r} "
            f"is {'missing' if wrong[0] in own else 'not one of them'}"
        )
