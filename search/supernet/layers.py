"""The layers of one block, as an extracted subnet has them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.search.spaces.blocks import BlockSpec

from .basic import plain_block


def build_layers(spec: BlockSpec) -> nn.Module:
    """Build a block's layers; their weights are still to be drawn."""
    if spec.kind == "stem":
        return _stem(spec)
    if spec.kind == "head":
        return _head(spec)
    return _block(spec)


def _block(spec: BlockSpec) -> nn.Module:
    from ofa.utils.layers import IdentityLayer, MBConvLayer, ResidualBlock, ResNetBottleneckBlock

    if spec.style == "basic":
        return plain_block(spec.in_channels, spec.mid_channels, spec.out_channels, spec.kernel, spec.stride, spec.act)
    if spec.style == "bottleneck":
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

    if spec.style != "bottleneck":
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
    """Build up to two 1x1 convolutions around the pooling (MobileNetV3 has both), then the classifier."""
    from ofa.utils.layers import ConvLayer

    layers: list[nn.Module] = []
    if spec.head_convs >= 1:
        width = spec.mid_channels if spec.head_convs == 2 else spec.out_channels
        layers.append(ConvLayer(spec.in_channels, width, 1, act_func=spec.act))
    layers.append(_Pool())
    if spec.head_convs == 2:
        layers.append(ConvLayer(spec.mid_channels, spec.out_channels, 1, use_bn=False, act_func=spec.act))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(spec.out_channels, spec.num_classes))


class _Pool(nn.Module):
    """Average each map, in the package's own two steps: runtimes time what the extracted subnet runs."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to (n, channels, 1, 1)."""
        return torch.mean(torch.mean(x, 3, keepdim=True), 2, keepdim=True)
