"""Give the layers of a network the shapes of its pruned form, to rebuild a pruned network from the original one.

`pruned_shapes` lists the tensors of a pruned state dict whose shapes differ, `apply_shapes` gives a network layers
of these shapes with zeros in those tensors; weights are loaded next. Works for convolutions, linear
layers and batch norms.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from tutelage.records import InputError

Shapes = dict[str, tuple[int, ...]]


def pruned_shapes(whole: nn.Module, cut: nn.Module) -> Shapes:
    """Give the shapes in `cut`'s state dict that differ from `whole`'s, by name."""
    before = {name: tuple(value.shape) for name, value in whole.state_dict().items()}
    after = {name: tuple(value.shape) for name, value in cut.state_dict().items()}
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())[0]
        raise InputError(f"{odd} is in only one of the two networks: give a network and its pruned form")
    return {name: shape for name, shape in after.items() if shape != before[name]}


def apply_shapes(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """Give `model` tensors of these shapes, in place; raise InputError where its layers cannot have them."""
    left = dict(shapes)
    for name, layer in model.named_modules():
        own = [*dict(layer.named_parameters(recurse=False)), *dict(layer.named_buffers(recurse=False))]
        mine = {key: left.pop(f"{name}.{key}") for key in own if f"{name}.{key}" in left}
        if mine:
            _resize(name, layer, mine)
    if left:
        raise InputError(f"{type(model).__name__} has no tensor named {next(iter(left))} to prune")
    return model


def _resize(name: str, layer: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for key, shape in shapes.items():
        old = getattr(layer, key)
        zeros = torch.zeros(shape, dtype=old.dtype)
        setattr(layer, key, nn.Parameter(zeros) if isinstance(old, nn.Parameter) else zeros)
    if isinstance(layer, nn.Conv2d):
        depthwise = layer.groups == layer.in_channels == layer.out_channels
        layer.out_channels, per_group = layer.weight.shape[:2]
        layer.groups = layer.out_channels if depthwise else layer.groups
        layer.in_channels = per_group * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.BatchNorm2d):
        layer.num_features = len(layer.weight)
    else:
        raise InputError(
            f"layer {name} ({type(layer).__name__}) lost channels, and only convolutions, linear layers and batch "
            "norms can be built again smaller: prune another network"
        )
