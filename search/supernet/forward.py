"""Run subnets of an `ofa` supernet fast: our own forward over the supernet's very parameters.

Gradients flow to the supernet's parameters, and the state dict stays the package's. What is saved: channels-last
copies, slow weight gradients and kernel taps that only meet padding (`fast_layers.py`), module calls, three of the four
passes of hard-swish, and running statistics that nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.records import Arch

from .fast_layers import depthwise

# Normalises a tensor with the weight, bias and statistics of a batch norm.
_Norm = Callable[[Tensor, nn.BatchNorm2d], Tensor]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu_,  # in place, always on what batch norm wrote and nobody else reads
    "relu6": partial(F.relu6, inplace=True),
    "h_swish": F.hardswish,  # x relu6(x + 3) / 6 in one pass; equal to the package's up to rounding
}


def fast_bf16(device: torch.device) -> bool:
    """Say whether bfloat16 trains these networks faster on the device.

    On CPUs it must be requested: the 1x1 convolutions win by it at 64 px and above, less on smaller maps, and what it
    does to accuracy is not measured. Depthwise convolutions stay in float32 either way (oneDNN's strided ones in
    bfloat16 take a hundred times as long; tests/benchmarks/test_bench_supernet.py).
    """
    return device.type == "cuda" and bool(torch.cuda.is_bf16_supported())


def forward_subnet(net: nn.Module, arch: Arch, images: Tensor, *, track: bool = False, bf16: bool = False) -> Tensor:
    """Compute the logits (batch, classes) of one subnet on images (batch, channels, side, side) without touching state.

    In training mode batch norm uses the statistics of the batch; running statistics move only with `track`. In eval
    mode the running statistics are used. `bf16` computes all but depthwise convolutions in bfloat16.
    """
    x = images.contiguous(memory_format=torch.channels_last)
    elastic, norm = cast(Any, net), _norm(net.training, track)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        if arch.w:
            return elastic.classifier(resnet_features(elastic, arch, x, norm))  # type: ignore[no-any-return]
        return elastic.classifier(features(elastic, arch, x, norm))  # type: ignore[no-any-return]


def features(net: Any, arch: Arch, x: Tensor, norm: _Norm) -> Tensor:
    """Compute what the classifier sees: (batch, features)."""
    x = _conv_layer(net.first_conv, x, norm)
    x = _plain_block(net.blocks[0], x, norm)
    kernels, expands = arch.ks, arch.e
    for slots, depth in zip(net.block_group_info, net.space.blocks_of(arch), strict=True):
        for index in slots[:depth]:
            x = _elastic_block(net.blocks[index], x, kernels[index - 1], expands[index - 1], norm)
    if hasattr(net, "final_expand_layer"):
        x = _conv_layer(net.final_expand_layer, x, norm)
        x = x.mean((2, 3), keepdim=True)
        return _conv_layer(net.feature_mix_layer, x, norm).flatten(1)
    return _conv_layer(net.feature_mix_layer, x, norm).mean((2, 3))


def resnet_features(net: Any, arch: Arch, x: Tensor, norm: _Norm) -> Tensor:
    """Compute what the classifier of a ResNet50D sees: (batch, features)."""
    inner, out = net.input_stem[0].out_channel_list[arch.w[0]], net.input_stem[2].out_channel_list[arch.w[1]]
    x = _dynamic_conv(net.input_stem[0], x, inner, norm)
    if arch.d[0]:  # the stem's residual block is there or not
        x = x + _dynamic_conv(net.input_stem[1].conv, x, inner, norm)
    x = net.max_pooling(_dynamic_conv(net.input_stem[2], x, out, norm))
    for slots, blocks, width in zip(net.grouped_block_index, net.space.blocks_of(arch), arch.w[2:], strict=True):
        for index in slots[:blocks]:
            block = net.blocks[index]
            x = _bottleneck(block, x, block.out_channel_list[width], arch.e[index], norm)
    return x.mean((2, 3))


def active_kernel(conv: Any, channels: int, kernel: int) -> Tensor:
    """Give the depthwise kernels (channels, 1, kernel, kernel): cropped from the largest and transformed, step by step.

    Once-for-All, section 3.2: 7x7 -> centre 5x5 -> 25x25 matrix -> centre 3x3 -> 9x9 matrix.
    """
    sizes: list[int] = conv._ks_set
    weight: Tensor = conv.conv.weight[:channels]
    size = sizes[-1]
    for target in reversed(sizes[:-1]):
        if target < kernel:
            break
        margin = (size - target) // 2
        weight = weight[:, :, margin : margin + target, margin : margin + target]
        matrix = getattr(conv, f"{size}to{target}_matrix")
        weight = F.linear(weight.reshape(channels, -1), matrix).view(channels, 1, target, target)
        size = target
    return weight


def _norm(training: bool, track: bool) -> _Norm:
    def batch(x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
        c = x.shape[1]
        if track and bn.running_mean is not None and bn.running_var is not None:
            mean, var = bn.running_mean[:c], bn.running_var[:c]
            return F.batch_norm(x, mean, var, bn.weight[:c], bn.bias[:c], True, bn.momentum or 0.1, bn.eps)
        return F.batch_norm(x, None, None, bn.weight[:c], bn.bias[:c], True, 0.0, bn.eps)

    def running(x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
        c = x.shape[1]
        assert bn.running_mean is not None
        assert bn.running_var is not None
        return F.batch_norm(x, bn.running_mean[:c], bn.running_var[:c], bn.weight[:c], bn.bias[:c], False, 0.0, bn.eps)

    return batch if training else running


def _conv_layer(layer: Any, x: Tensor, norm: _Norm) -> Tensor:
    x = F.conv2d(x, layer.conv.weight, None, layer.conv.stride, layer.conv.padding)
    if layer.use_bn:
        x = norm(x, layer.bn)
    return _ACTIVATIONS[layer.act_func](x)


def _dynamic_conv(layer: Any, x: Tensor, channels: int, norm: _Norm) -> Tensor:
    weight = layer.conv.conv.weight[:channels, : x.shape[1]]
    return _ACTIVATIONS[layer.act_func](
        norm(F.conv2d(x, weight, None, layer.stride, weight.shape[-1] // 2), layer.bn.bn)
    )


def _bottleneck(block: Any, x: Tensor, channels: int, expand: float, norm: _Norm) -> Tensor:
    from ofa.utils import MyNetwork, make_divisible

    act = _ACTIVATIONS[block.act_func]
    middle = make_divisible(round(channels * expand), MyNetwork.CHANNEL_DIVISIBLE)

    def convolved(part: Any, x: Tensor, channels: int, stride: int = 1) -> Tensor:
        weight = part.conv.conv.weight[:channels, : x.shape[1]]
        return norm(F.conv2d(x, weight, None, stride, weight.shape[-1] // 2), part.bn.bn)

    shortcut = x
    if hasattr(block.downsample, "conv"):
        shortcut = convolved(block.downsample, block.downsample.avg_pool(x), channels)
    y = act(convolved(block.conv1, x, middle))
    y = act(convolved(block.conv2, y, middle, block.stride))
    return act(convolved(block.conv3, y, channels) + shortcut)


def _plain_block(block: Any, x: Tensor, norm: _Norm) -> Tensor:
    """Run the first block: fixed, kernel 3, no expansion."""
    conv = block.conv
    act = _ACTIVATIONS[conv.act_func]
    depth, point = conv.depth_conv, conv.point_linear
    y = act(norm(depthwise(x, depth.conv.weight, conv.stride), depth.bn))
    y = norm(F.conv2d(y, point.conv.weight), point.bn)
    return y if block.shortcut is None else y + x


def _elastic_block(block: Any, x: Tensor, kernel: int, expand: float, norm: _Norm) -> Tensor:
    from ofa.utils import MyNetwork, make_divisible

    conv = block.conv
    act = _ACTIVATIONS[conv.act_func]
    in_channels = x.shape[1]
    middle = make_divisible(round(in_channels * expand), MyNetwork.CHANNEL_DIVISIBLE)
    widen, depth, point = conv.inverted_bottleneck, conv.depth_conv, conv.point_linear
    y = F.conv2d(x, widen.conv.conv.weight[:middle, :in_channels])
    y = act(norm(y, widen.bn.bn))
    y = depthwise(y, active_kernel(depth.conv, middle, kernel), conv.stride)
    y = act(norm(y, depth.bn.bn))
    if conv.use_se:
        y = _squeeze_excite(depth.se, y)
    y = norm(F.conv2d(y, point.conv.conv.weight[:, :middle]), point.bn.bn)
    return y if block.shortcut is None else y + x


def _squeeze_excite(se: Any, x: Tensor) -> Tensor:
    from ofa.utils import MyNetwork, make_divisible

    channels = x.shape[1]
    squeezed = make_divisible(channels // se.reduction, divisor=MyNetwork.CHANNEL_DIVISIBLE)
    reduce, expand = se.fc.reduce, se.fc.expand
    y = x.mean((2, 3))
    y = F.relu(F.linear(y, reduce.weight[:squeezed, :channels, 0, 0], reduce.bias[:squeezed]))
    y = F.linear(y, expand.weight[:channels, :squeezed, 0, 0], expand.bias[:channels])
    return x * F.hardsigmoid(y)[:, :, None, None]
