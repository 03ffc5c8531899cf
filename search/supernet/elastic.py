"""Supernets of the `ofa` package as plain modules: build, set the active subnet, cut it out.

Enters: a space (or its name), an `Arch`, numbers. Leaves: `nn.Module`s whose state-dict keys are those of the official
weight files. Source: Cai et al., Once-for-All, ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.records import Arch, InputError
from tutelage.search.spaces.space import Space, find_space

from .weights import load_weights

# What the package multiplies its base widths by; the space lists the widths that come out.
_RESNET_WIDTH_MULTS = (0.65, 0.8, 1.0)
_MOBILE_WIDTH_MULTS = (0.75, 1.0, 1.2, 1.3)


def build_supernet(
    space: Space | str,
    num_classes: int,
    in_channels: int = 3,
    weights: Path | None = None,
    seed: int = 0,
    *,
    dropout: float = 0.0,
    kernel_transform: bool = True,
) -> nn.Module:
    """Build the elastic network of a space, drawn from `seed`, or loaded from an official weights file.

    `kernel_transform` keeps the learned 7->5->3 kernel matrices, as the official weights have them; without it smaller
    kernels are centre crops. Raises `InputError` for an unknown space or a file that does not fit.
    """
    space = resolve_space(space)
    with seeded(seed):
        net = _elastic(space, num_classes, in_channels, dropout)
        initialise(net)
    if not kernel_transform:
        _drop_kernel_transforms(net)
    if weights is not None:
        load_weights(net, weights)
    set_active(net, space.largest())
    return net


def set_active(net: nn.Module, arch: Arch) -> None:
    """Make `arch` the subnet that `net(x)` computes. Raises `InputError` when it is not of this network's family."""
    elastic: Any = net
    choices: dict[str, list[Any]] = {"d": list(arch.d)}
    if arch.w:
        choices |= {"w": list(arch.w), "e": _or_keep(arch.e)}
    else:
        choices |= {"ks": _or_keep(arch.ks), "e": _or_keep(arch.e)}
        if len(arch.ks) != len(elastic.blocks) - 1:
            raise InputError(
                f"arch of {arch.space} has {len(arch.ks)} block slots, this supernet has {len(elastic.blocks) - 1}: "
                "build the supernet of that space"
            )
    elastic.set_active_subnet(**choices)


def extract(net: nn.Module, arch: Arch) -> nn.Module:
    """Cut `arch` out as a network of its own, equal to the supernet with that subnet active to the bit in eval mode.

    The weights are copies; `net` is left with `arch` active.
    """
    set_active(net, arch)
    elastic: Any = net
    with seeded(0):  # the layers are drawn before they are overwritten: leave the caller's generator alone
        subnet: nn.Module = elastic.get_active_subnet()
        if arch.w:  # the package cuts three input channels whatever the stem has
            stem = elastic.input_stem[0]
            in_channels = stem.conv.conv.in_channels
            cut: Any = subnet
            cut.input_stem[0] = stem.get_active_subnet(in_channels)
            subnet.set_bn_param(**elastic.get_bn_param())  # type: ignore[operator]
    return subnet.train(net.training)


def build_arch(arch: Arch, num_classes: int, in_channels: int = 3, seed: int = 0, dropout: float = 0.0) -> nn.Module:
    """Build one subnet from scratch, its weights drawn from `seed`."""
    space = resolve_space(arch.space)
    with torch.device("meta"):
        elastic: Any = _elastic(space, num_classes, in_channels, dropout)
    set_active(elastic, arch)
    config = elastic.get_active_net_config()
    if arch.w:
        config["input_stem"][0]["in_channels"] = in_channels
        for layer in config["input_stem"]:
            if isinstance(layer.get("shortcut"), nn.Module):  # the package puts the module where its config belongs
                layer["shortcut"] = layer["shortcut"].config
    with seeded(seed):
        net: nn.Module = _plain_class(config["name"]).build_from_config(config)
        initialise(net)
    return net


def resolve_space(space: Space | str) -> Space:
    """Give the space of that name; raises `InputError` for one that is not known."""
    return find_space(space) if isinstance(space, str) else space


def _elastic(space: Space, num_classes: int, in_channels: int, dropout: float) -> nn.Module:
    """Build the `ofa` supernet and give it the stem of the space: input channels and stride."""
    from ofa.imagenet_classification.elastic_nn.modules import DynamicConvLayer
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3, OFAProxylessNASNets, OFAResNets
    from ofa.utils.layers import ConvLayer

    net: Any
    bn: dict[str, Any]
    if space.family == "resnet50":
        net = OFAResNets(
            num_classes,
            dropout_rate=dropout,
            depth_list=list(space.depths),
            expand_ratio_list=list(space.expands),
            width_mult_list=list(_RESNET_WIDTH_MULTS),
        )
        bn, stem = net.get_bn_param(), net.input_stem[0]
        if in_channels != stem.in_channels:
            net.input_stem[0] = DynamicConvLayer(
                [in_channels], stem.out_channel_list, stem.kernel_size, stem.stride, act_func=stem.act_func
            )
    else:
        network = {"mbv3": OFAMobileNetV3, "proxyless": OFAProxylessNASNets}[space.family]
        net = network(
            num_classes,
            dropout_rate=dropout,
            width_mult=_width_mult(space),
            ks_list=list(space.kernels),
            expand_ratio_list=list(space.expands),
            depth_list=list(space.depths),
        )
        bn, stem = net.get_bn_param(), net.first_conv
        if in_channels != stem.in_channels or space.stem_stride != stem.stride:
            net.first_conv = ConvLayer(
                in_channels, stem.out_channels, stem.kernel_size, stride=space.stem_stride, act_func=stem.act_func
            )
    net.set_bn_param(**bn)  # a new stem takes the momentum and epsilon of the rest
    return net  # type: ignore[no-any-return]


def _width_mult(space: Space) -> float:
    """Read the width multiplier off the space's name, e.g. 1.2 from `ofa_mbv3_w1.2_stem1`."""
    for multiplier in _MOBILE_WIDTH_MULTS:
        if f"_w{multiplier}" in space.name:
            return multiplier
    raise InputError(f"space {space.name!r} has no width in its name: end it with one of _w0.75, _w1.0, _w1.2, _w1.3")


def initialise(net: nn.Module) -> None:
    """Draw weights as the OFA training script does: He normal by fan-out, batch norm at one, heads uniform."""
    from ofa.utils import init_models

    init_models(net)


def _drop_kernel_transforms(net: nn.Module) -> None:
    from ofa.imagenet_classification.elastic_nn.modules import DynamicSeparableConv2d

    for module in net.modules():
        if isinstance(module, DynamicSeparableConv2d):
            module.KERNEL_TRANSFORM_MODE = None  # on the instance: the class attribute is global to the process
            for name in [name for name, _ in module.named_parameters(recurse=False) if name.endswith("_matrix")]:
                delattr(module, name)


def _plain_class(name: str) -> Any:
    from ofa.imagenet_classification.networks import get_net_by_name

    return get_net_by_name(name)


def _or_keep(values: Any) -> list[Any]:
    """Turn the 0 of an inactive slot into the package's `None`: leave that block as it is."""
    return [value or None for value in values]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` inside, and leave torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
