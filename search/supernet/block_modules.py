"""Build one block of an architecture as a network of its own, for tables of block latencies.

Enters: a `BlockSpec`. Leaves: the very layers an extracted subnet has there, freshly drawn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tutelage.search.spaces.blocks import BlockSpec

from .elastic import initialise, seeded


def build_block(spec: BlockSpec, seed: int = 0) -> nn.Module:
    """Build the block in eval mode: (n, in_channels, in_hw, in_hw) -> (n, out_channels, side, side), heads to classes.

    Batch norm's running statistics are those of a new layer, so the block computes ordinary numbers.
    """
    with seeded(seed):
        block = _head(spec) if spec.kind == "head" else _stem(spec) if spec.kind == "stem" else _body(spec)
        initialise(block)
    return block.eval()


def _body(spec: BlockSpec) -> nn.Module:
    from ofa.utils.layers import IdentityLayer, MBConvLayer, ResidualBlock, ResNetBottleneckBlock

    if spec.family == "resnet50":
        bottleneck: nn.Module = ResNetBottleneckBlock(
            spec.in_channels,
            spec.out_channels,
            spec.kernel,
            spec.stride,
            mid_channels=spec.mid_channels,
            act_func=spec.act,
            downsample_mode="avgpool_conv",
        )
        return bottleneck
    layer = MBConvLayer(
        spec.in_channels,
        spec.out_channels,
        spec.kernel,
        spec.stride,
        expand_ratio=1 if spec.kind == "first" else spec.mid_channels / spec.in_channels,
        mid_channels=spec.mid_channels,
        act_func=spec.act,
        use_se=spec.se,
    )
    shortcut = IdentityLayer(spec.in_channels, spec.out_channels) if spec.shortcut else None
    block: nn.Module = ResidualBlock(layer, shortcut)
    return block


def _stem(spec: BlockSpec) -> nn.Module:
    from ofa.utils.layers import ConvLayer, IdentityLayer, ResidualBlock

    if spec.family != "resnet50":
        stem: nn.Module = ConvLayer(
            spec.in_channels, spec.out_channels, spec.kernel, stride=spec.stride, act_func=spec.act
        )
        return stem
    inner = spec.mid_channels
    layers = [ConvLayer(spec.in_channels, inner, spec.kernel, stride=spec.stride, act_func=spec.act)]
    if spec.shortcut:
        residual = ConvLayer(inner, inner, spec.kernel, act_func=spec.act)
        layers.append(ResidualBlock(residual, IdentityLayer(inner, inner)))
    layers.append(ConvLayer(inner, spec.out_channels, spec.kernel, act_func=spec.act))
    return nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1))


def _head(spec: BlockSpec) -> nn.Module:
    from ofa.utils.layers import ConvLayer

    layers: list[Any] = []
    if spec.family == "mbv3":
        layers = [
            ConvLayer(spec.in_channels, spec.mid_channels, 1, act_func=spec.act),
            _Pool(),
            ConvLayer(spec.mid_channels, spec.out_channels, 1, use_bn=False, act_func=spec.act),
        ]
    elif spec.family == "proxyless":
        layers = [ConvLayer(spec.in_channels, spec.out_channels, 1, act_func=spec.act), _Pool()]
    else:
        layers = [_Pool()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(spec.out_channels, spec.num_classes))


class _Pool(nn.Module):
    """Average each map, in the package's own two steps: runtimes time what the extracted subnet runs."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to (n, channels, 1, 1)."""
        return torch.mean(torch.mean(x, 3, keepdim=True), 2, keepdim=True)
