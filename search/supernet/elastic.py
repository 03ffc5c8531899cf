"""Supernets as plain modules: build one for a space, set its active subnet, extract it; build single archs and blocks.

The elastic layers are the `ofa` package's, arranged as the space declares, and state-dict keys are those of the
official weight files; basic blocks, which the package lacks, are in `basic.py`. Source: Cai et al., Once-for-All, ICLR
2020.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.accelerator import drawing
from tutelage.records import Arch, InputError
from tutelage.search.spaces.blocks import BlockSpec, block_specs
from tutelage.search.spaces.space import Space, find_space

from .basic import ElasticBasicNet, plain_net
from .layers import build_layers
from .weights import load_weights

_BN_MOMENTUM = 0.1


def build_supernet(
    space: Space | str,
    num_classes: int,
    in_channels: int = 3,
    weights: Path | None = None,
    seed: int = 0,
    *,
    dropout: float = 0.0,
) -> nn.Module:
    """Build the elastic network of a space, drawn from `seed`, or loaded from an official weights file.

    Raises `InputError` for an unknown space or a file that does not fit.
    """
    space = resolve_space(space)
    with drawing(seed):
        net = _elastic(space, num_classes, in_channels, dropout)
        initialise(net)
    if weights is not None:
        load_weights(net, weights)
    set_active(net, space.largest())
    return net


def set_active(net: nn.Module, arch: Arch) -> None:
    """Make `arch` the subnet that `net(x)` computes. Raises `InputError` when it is not of this network's family."""
    check_family(net, arch)
    elastic: Any = net
    space: Space = elastic.space
    if space.family.style == "basic":
        elastic.set_active_subnet(d=space.blocks_of(arch), e=arch.e)
    elif arch.w:
        elastic.set_active_subnet(d=list(arch.d), w=list(arch.w), e=_or_keep(arch.e))
    else:
        elastic.set_active_subnet(d=space.blocks_of(arch), ks=_or_keep(arch.ks), e=_or_keep(arch.e))


def check_family(net: nn.Module, arch: Arch) -> None:
    """Raise `InputError` when an arch is not of this network's family."""
    space: Space = net.space  # type: ignore[assignment]
    wanted = {field: space.columns(field).stop - space.columns(field).start for field in ("d", "ks", "e", "w")}
    for field, length in wanted.items():
        if len(getattr(arch, field)) != length:
            raise InputError(
                f"arch of {arch.space} has {len(getattr(arch, field))} entries in {field}, this supernet of "
                f"{space.name} takes {length}: build the supernet of that space"
            )


def extract(net: nn.Module, arch: Arch) -> nn.Module:
    """Extract `arch` as a network of its own, equal to the supernet with that subnet active to the bit in eval mode.

    The weights are copies; `net` is left with `arch` active.
    """
    set_active(net, arch)
    elastic: Any = net
    with drawing(0):  # the layers are drawn before they are overwritten: leave the caller's generator alone
        subnet: nn.Module = elastic.get_active_subnet()
        if arch.w:  # the package extracts three input channels whatever the stem has
            stem = elastic.input_stem[0]
            in_channels = stem.conv.conv.in_channels
            extracted: Any = subnet
            extracted.input_stem[0] = stem.get_active_subnet(in_channels)
            subnet.set_bn_param(**elastic.get_bn_param())  # type: ignore[operator]
    return subnet.train(net.training)


def build_arch(arch: Arch, num_classes: int, in_channels: int = 3, seed: int = 0, dropout: float = 0.0) -> nn.Module:
    """Build one subnet from scratch, its weights drawn from `seed`."""
    space = resolve_space(arch.space)
    if space.family.style == "basic":
        with drawing(seed):
            plain = plain_net(block_specs(arch, num_classes, in_channels), dropout)
            initialise(plain)
        _set_bn(plain, space)
        return plain
    with torch.device("meta"):
        elastic: Any = _elastic(space, num_classes, in_channels, dropout)
    set_active(elastic, arch)
    config = elastic.get_active_net_config()
    if arch.w:
        config["input_stem"][0]["in_channels"] = in_channels
        for layer in config["input_stem"]:
            if isinstance(layer.get("shortcut"), nn.Module):  # the package puts the module where its config belongs
                layer["shortcut"] = layer["shortcut"].config
    with drawing(seed):
        net: nn.Module = _plain_class(config["name"]).build_from_config(config)
        initialise(net)
    return net


def resolve_space(space: Space | str) -> Space:
    """Give the space of that name; raises `InputError` for one that is not known."""
    return find_space(space) if isinstance(space, str) else space


def build_block(spec: BlockSpec, seed: int = 0) -> nn.Module:
    """Build one block as a network in eval mode, for tables of block latencies: the layers an extracted subnet has.

    Maps (n, in_channels, in_hw, in_hw) to (n, out_channels, out_hw, out_hw), a head to (n, classes). The running
    statistics of batch norm are those of a new layer, so the block computes ordinary numbers.
    """
    with drawing(seed):
        block = build_layers(spec)
        initialise(block)
    return block.eval()


def _elastic(space: Space, num_classes: int, in_channels: int, dropout: float) -> nn.Module:
    """Build the elastic network of a space, its weights still to be drawn; the network remembers its space."""
    net: Any
    if space.family.style == "basic":
        net = ElasticBasicNet(space, num_classes, in_channels, dropout)
    elif space.family.style == "bottleneck":
        net = _bottlenecks(space, num_classes, in_channels, dropout)
    else:
        net = _mbconvs(space, num_classes, dropout)
        stem = net.first_conv
        if in_channels != stem.in_channels or space.stem_stride != stem.stride:
            net.first_conv = type(stem)(
                in_channels, stem.out_channels, stem.kernel_size, stride=space.stem_stride, act_func=stem.act_func
            )
    _set_bn(net, space)
    net.space = space
    return net  # type: ignore[no-any-return]


def _set_bn(net: nn.Module, space: Space) -> None:
    from ofa.utils import set_bn_param

    set_bn_param(net, momentum=_BN_MOMENTUM, eps=space.family.bn_eps)


def _mbconvs(space: Space, num_classes: int, dropout: float) -> Any:
    """Arrange elastic inverted bottlenecks as the space declares, with the package's stem of 3 channels and stride 2.

    The package's own constructors know Once for All's widths alone, so their base classes are given the layers.
    """
    from ofa.imagenet_classification.elastic_nn.modules import DynamicMBConvLayer
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3, OFAProxylessNASNets
    from ofa.utils.layers import ConvLayer, IdentityLayer, LinearLayer, MBConvLayer, ResidualBlock

    family = space.family
    stem, channels, *rest = (choices[0] for choices in space.widths)
    widths, tail = rest[: len(family.stages)], rest[len(family.stages) :]
    first_conv = ConvLayer(3, stem, 3, stride=2, act_func=family.act)
    first = MBConvLayer(stem, channels, 3, 1, expand_ratio=1, act_func=family.first_act)
    adds = family.first_shortcut and stem == channels
    blocks = [ResidualBlock(first, IdentityLayer(channels, channels) if adds else None)]
    groups = []
    for stage, width in zip(family.stages, widths, strict=True):
        groups.append(list(range(len(blocks), len(blocks) + stage.num_slots)))
        for position in range(stage.num_slots):
            stride = stage.stride if position == 0 else 1
            layer = DynamicMBConvLayer(
                [channels], [width], list(space.kernels), list(space.expands), stride, stage.act, stage.se
            )
            adds = stride == 1 and channels == width
            blocks.append(ResidualBlock(layer, IdentityLayer(width, width) if adds else None))
            channels = width
    head = [ConvLayer(channels, tail[0], 1, act_func=family.act)]
    if len(tail) == 2:
        head.append(ConvLayer(tail[0], tail[1], 1, bias=False, use_bn=False, act_func=family.act))
    kind = OFAMobileNetV3 if len(tail) == 2 else OFAProxylessNASNets
    net: Any = kind.__new__(kind)
    super(kind, net).__init__(first_conv, blocks, *head, LinearLayer(tail[-1], num_classes, dropout_rate=dropout))
    net.ks_list, net.expand_ratio_list, net.depth_list = list(space.kernels), list(space.expands), list(space.depths)
    net.block_group_info, net.runtime_depth = groups, [len(group) for group in groups]
    return net


def _bottlenecks(space: Space, num_classes: int, in_channels: int, dropout: float) -> Any:
    """Arrange elastic ResNet bottlenecks as the space declares, see `_mbconvs`."""
    from ofa.imagenet_classification.elastic_nn.modules import DynamicConvLayer, DynamicLinearLayer
    from ofa.imagenet_classification.elastic_nn.modules.dynamic_layers import DynamicResNetBottleneckBlock
    from ofa.imagenet_classification.elastic_nn.networks import OFAResNets
    from ofa.utils.layers import IdentityLayer, ResidualBlock

    family = space.family
    inner, channels, *widths = (list(choices) for choices in space.widths)

    def stem_conv(inputs: list[int], outputs: list[int], stride: int = 1) -> Any:
        return DynamicConvLayer(inputs, outputs, 3, stride=stride, act_func=family.act)

    stem = [
        stem_conv([3], inner, space.stem_stride),
        ResidualBlock(stem_conv(inner, inner), IdentityLayer(inner, inner)),
        stem_conv(inner, channels),
    ]
    blocks = []
    for stage, width in zip(family.stages, widths, strict=True):
        for position in range(stage.num_slots):
            blocks.append(
                DynamicResNetBottleneckBlock(
                    channels,
                    width,
                    expand_ratio_list=list(space.expands),
                    kernel_size=3,
                    stride=stage.stride if position == 0 else 1,
                    act_func=stage.act,
                    downsample_mode="avgpool_conv",
                )
            )
            channels = width
    net: Any = OFAResNets.__new__(OFAResNets)
    classifier = DynamicLinearLayer(channels, num_classes, dropout_rate=dropout)
    super(OFAResNets, net).__init__(stem, blocks, classifier)
    net.depth_list = list(range(max(family.stem_depths) + 1))
    net.expand_ratio_list = list(space.expands)
    net.input_stem_skipping, net.runtime_depth = 0, [0] * len(family.stages)
    if in_channels != 3:
        net.input_stem[0] = stem_conv([in_channels], inner, space.stem_stride)
    return net


def initialise(net: nn.Module) -> None:
    """Draw weights as the OFA training script does: He normal by fan-out, batch norm at one, heads uniform."""
    from ofa.utils import init_models

    init_models(net)


def _plain_class(name: str) -> Any:
    from ofa.imagenet_classification.networks import get_net_by_name

    return get_net_by_name(name)


def _or_keep(values: Any) -> list[Any]:
    """Turn the 0 of an inactive slot into the package's `None`: leave that block as it is."""
    return [value or None for value in values]
