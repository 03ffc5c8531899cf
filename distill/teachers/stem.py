"""The first convolution of a network of timm, and its stride: `set_stem_stride`, `stem_stride_of`.

Networks made for 224 px halve an image of 32 or 64 px to nothing. At a stem of stride 1 they see it at twice the
resolution, and a ResNet's stem then loses its max-pool, as the ResNets for CIFAR have none (He et al., CVPR 2016).
"""

from __future__ import annotations

from typing import Any

from torch import nn

from tutelage.records import InputError

from .weights import first_conv_name

STRIDES = (1, 2)


def stem_stride_of(net: nn.Module) -> int | None:
    """Give the stride of the first convolution; None where it makes patches whose positions the network knows."""
    if takes_image_size(net):
        return None
    return int(_first_convs(net)[0].stride[0])


def set_stem_stride(net: nn.Module, stride: int, name: str) -> None:
    """Give the first convolution a stride of 1 or 2; at 1 a max-pool between stem and blocks becomes the identity.

    A stem of parallel branches (RepVGG, MobileOne) has the stride in each. Raises InputError for another stride, and
    for a network that divides its image into patches.
    """
    if isinstance(stride, bool) or stride not in STRIDES:
        raise InputError(f"{name}: stem_stride is {stride!r}: give 1 or 2")
    if takes_image_size(net):
        raise InputError(
            f"{name} has no stem convolution whose stride could be {stride}: it divides its image into patches, so "
            "leave stem_stride out (a ViT takes patch_size)"
        )
    for conv in _first_convs(net):
        conv.stride = (stride, stride)
    if stride == 1:
        _drop_pool(net)


def takes_image_size(net: nn.Module) -> bool:
    """Tell whether positions are bound to the image size (ViT, DeiT, Swin, Visformer)."""
    return hasattr(net, "patch_embed") or hasattr(net, "patch_embed1")


def _first_convs(net: nn.Module) -> list[Any]:
    """Give the convolutions that see the image: one, or one for each branch of the stem."""
    named = getattr(net, "default_cfg", {}).get("first_conv")
    names = named if isinstance(named, list | tuple) and named else [first_conv_name(net)]
    return [net.get_submodule(name) for name in names]


def _drop_pool(net: nn.Module) -> None:
    """Remove the pool of a stem: the first one behind the first convolution, with no other halving between them."""
    parts = first_conv_name(net).split(".")
    for depth in range(len(parts) - 1, -1, -1):
        parent = net.get_submodule(".".join(parts[:depth]))
        names = [name for name, _ in parent.named_children()]
        for name in names[names.index(parts[depth]) + 1 :]:
            child = parent.get_submodule(name)
            if name == "maxpool" or isinstance(child, nn.MaxPool2d | nn.AvgPool2d):
                _undo(parent, name)
                return
            if any(_halves(module) for module in child.modules()):
                return


def _undo(parent: nn.Module, name: str) -> None:
    """Let a pool keep the resolution: one with weights of its own (ResNet-RS) by its stride, others are left out."""
    pool = parent.get_submodule(name)
    if not list(pool.parameters()):
        parent.register_module(name, nn.Identity())
        return
    for module in pool.modules():
        if _halves(module):
            module.stride = (1, 1)  # type: ignore[assignment]


def _halves(module: nn.Module) -> bool:
    stride = getattr(module, "stride", 1)
    return (max(stride) if isinstance(stride, tuple | list) else stride) != 1
