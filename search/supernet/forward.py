"""Run subnets of a supernet fast: our own forward over the supernet's very parameters.

Gradients flow to the supernet's parameters, and the state dict stays the package's. What is saved: channels-last
copies, slow weight gradients and kernel taps that only meet padding (`fast_layers.py`), module calls, three of the four
passes of hard-swish, and running statistics that nobody reads. `steps_of` gives a subnet as a sequence of steps;
subnets whose first steps have the same keys compute the same in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.records import Arch

from .fast_layers import depthwise

_ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda x: x,
    "relu": F.relu_,  # in place, always on what batch norm wrote and nobody else reads
    "relu6": partial(F.relu6, inplace=True),
    "h_swish": F.hardswish,  # x relu6(x + 3) / 6 in one pass; equal to the package's up to rounding
}


class Convolve(Protocol):
    """Convolves, normalises where `bn` is given, and applies the activation that `act` names."""

    def __call__(
        self, x: Tensor, weight: Tensor, bn: nn.BatchNorm2d | None, act: str | None, stride: int = 1
    ) -> Tensor: ...


@dataclass(frozen=True)
class Step:
    """A part of a subnet's forward: `run` maps a tensor to the next one, equal `key` on one supernet to equal parts."""

    key: tuple[object, ...]
    run: Callable[[Tensor, Convolve], Tensor]


def forward_subnet(net: nn.Module, arch: Arch, images: Tensor, *, track: bool = False, bf16: bool = False) -> Tensor:
    """Compute the logits (batch, classes) of one subnet on images (batch, channels, side, side) without touching state.

    In training mode batch norm uses the statistics of the batch; running statistics move only with `track`. In eval
    mode the running statistics are used. `bf16` computes in bfloat16; on a CPU all but depthwise convolutions, which
    are slow in it there (tests/benchmarks/test_bench_supernet.py).
    """
    x = images.contiguous(memory_format=torch.channels_last)
    convolve = partial(_by_batch, track) if net.training else _by_running
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        for step in steps_of(net, arch):
            x = step.run(x, convolve)
    return x


def steps_of(net: nn.Module, arch: Arch) -> list[Step]:
    """Give the forward of one subnet as steps, from images in channels-last to logits (batch, classes)."""
    elastic = cast(Any, net)
    style = elastic.space.family.style
    if style != "mbconv":
        steps = _basic_steps(elastic, arch) if style == "basic" else _resnet_steps(elastic, arch)
        return [*steps, Step(("head",), partial(_pooled_head, elastic))]
    steps = [
        Step(("stem",), partial(_conv_layer, elastic.first_conv)),
        Step(("first",), partial(_plain_block, elastic.blocks[0])),
    ]
    for slots, depth in zip(elastic.block_group_info, elastic.space.blocks_of(arch), strict=True):
        for index in slots[:depth]:
            kernel, expand = arch.ks[index - 1], arch.e[index - 1]
            run = partial(_elastic_block, elastic.blocks[index], kernel, expand)
            steps.append(Step((index, kernel, expand), run))
    return [*steps, Step(("head",), partial(_mbconv_head, elastic))]


def _resnet_steps(net: Any, arch: Arch) -> list[Step]:
    inner, out = net.input_stem[0].out_channel_list[arch.w[0]], net.input_stem[2].out_channel_list[arch.w[1]]
    residual = bool(arch.d[0])  # the stem's residual block is there or not
    steps = [Step(("stem", inner, residual, out), partial(_resnet_stem, net, inner, residual, out))]
    for slots, blocks, width in zip(net.grouped_block_index, net.space.blocks_of(arch), arch.w[2:], strict=True):
        for index in slots[:blocks]:
            block = net.blocks[index]
            channels, expand = block.out_channel_list[width], arch.e[index]
            steps.append(Step((index, channels, expand), partial(_bottleneck, block, channels, expand)))
    return steps


def _basic_steps(net: Any, arch: Arch) -> list[Step]:
    steps = [Step(("stem",), partial(_conv_layer, net.first_conv))]
    for slots, blocks in zip(net.groups, net.space.blocks_of(arch), strict=True):
        for index in slots[:blocks]:
            middle = net.blocks[index].middles[arch.e[index]]
            steps.append(Step((index, middle), partial(_basic_block, net.blocks[index], middle)))
    return steps


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


def convolve_same(x: Tensor, weight: Tensor, stride: int, bias: Tensor | None = None) -> Tensor:
    """Convolve with padding to `same`; depthwise where the weight (out, in / groups, k, k) has one input channel."""
    if weight.shape[1] == x.shape[1]:
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)
    return depthwise(x, weight, stride, bias)


def activate(x: Tensor, act: str | None) -> Tensor:
    """Apply an activation by the package's name for it, in place where autograd permits."""
    if act == "h_swish" and not torch.is_grad_enabled():
        return F.hardswish(x, inplace=True)
    return _ACTIVATIONS[act](x)


def _by_batch(
    track: bool, x: Tensor, weight: Tensor, bn: nn.BatchNorm2d | None, act: str | None, stride: int = 1
) -> Tensor:
    """Normalise by the statistics of the batch."""
    x = convolve_same(x, weight, stride)
    if bn is not None:
        c = x.shape[1]
        mean = var = None
        if track and bn.running_mean is not None and bn.running_var is not None:
            mean, var = bn.running_mean[:c], bn.running_var[:c]
        momentum = 0.0 if mean is None else bn.momentum or 0.1
        x = F.batch_norm(x, mean, var, bn.weight[:c], bn.bias[:c], True, momentum, bn.eps)
    return activate(x, act)


def _by_running(x: Tensor, weight: Tensor, bn: nn.BatchNorm2d | None, act: str | None, stride: int = 1) -> Tensor:
    """Normalise by the running statistics."""
    x = convolve_same(x, weight, stride)
    if bn is not None:
        c = x.shape[1]
        assert bn.running_mean is not None
        assert bn.running_var is not None
        mean, var = bn.running_mean[:c], bn.running_var[:c]
        x = F.batch_norm(x, mean, var, bn.weight[:c], bn.bias[:c], False, 0.0, bn.eps)
    return activate(x, act)


def _conv_layer(layer: Any, x: Tensor, convolve: Convolve) -> Tensor:
    return convolve(x, layer.conv.weight, layer.bn if layer.use_bn else None, layer.act_func, layer.stride)


def _dynamic_conv(layer: Any, channels: int, x: Tensor, convolve: Convolve) -> Tensor:
    weight = layer.conv.conv.weight[:channels, : x.shape[1]]
    return convolve(x, weight, layer.bn.bn, layer.act_func, layer.stride)


def _resnet_stem(net: Any, inner: int, residual: bool, out: int, x: Tensor, convolve: Convolve) -> Tensor:
    x = _dynamic_conv(net.input_stem[0], inner, x, convolve)
    if residual:
        x = _dynamic_conv(net.input_stem[1].conv, inner, x, convolve) + x
    pooled: Tensor = net.max_pooling(_dynamic_conv(net.input_stem[2], out, x, convolve))
    return pooled


def _bottleneck(block: Any, channels: int, expand: float, x: Tensor, convolve: Convolve) -> Tensor:
    from ofa.utils import MyNetwork, make_divisible

    middle = make_divisible(round(channels * expand), MyNetwork.CHANNEL_DIVISIBLE)

    def convolved(part: Any, x: Tensor, channels: int, act: str | None, stride: int = 1) -> Tensor:
        return convolve(x, part.conv.conv.weight[:channels, : x.shape[1]], part.bn.bn, act, stride)

    shortcut = x
    if hasattr(block.downsample, "conv"):
        shortcut = convolved(block.downsample, block.downsample.avg_pool(x), channels, None)
    y = convolved(block.conv1, x, middle, block.act_func)
    y = convolved(block.conv2, y, middle, block.act_func, block.stride)
    return activate(convolved(block.conv3, y, channels, None) + shortcut, block.act_func)


def _basic_block(block: Any, middle: int, x: Tensor, convolve: Convolve) -> Tensor:
    first, second = block.conv1, block.conv2
    shortcut = _conv_layer(block.shortcut, x, convolve) if hasattr(block.shortcut, "conv") else x
    y = convolve(x, first.conv.conv.weight[:middle], first.bn.bn, block.act_func, block.stride)
    y = convolve(y, second.conv.conv.weight[:, :middle], second.bn.bn, None)
    return activate(y + shortcut, block.act_func)


def _plain_block(block: Any, x: Tensor, convolve: Convolve) -> Tensor:
    """Run the first block: fixed, kernel 3, no expansion."""
    conv = block.conv
    depth, point = conv.depth_conv, conv.point_linear
    y = convolve(x, depth.conv.weight, depth.bn, conv.act_func, conv.stride)
    y = convolve(y, point.conv.weight, point.bn, None)
    return y if block.shortcut is None else y.add_(x)


def _elastic_block(block: Any, kernel: int, expand: float, x: Tensor, convolve: Convolve) -> Tensor:
    from ofa.utils import MyNetwork, make_divisible

    conv = block.conv
    in_channels = x.shape[1]
    middle = make_divisible(round(in_channels * expand), MyNetwork.CHANNEL_DIVISIBLE)
    widen, depth, point = conv.inverted_bottleneck, conv.depth_conv, conv.point_linear
    y = convolve(x, widen.conv.conv.weight[:middle, :in_channels], widen.bn.bn, conv.act_func)
    y = convolve(y, active_kernel(depth.conv, middle, kernel), depth.bn.bn, conv.act_func, conv.stride)
    if conv.use_se:
        y = _squeeze_excite(depth.se, y)
    y = convolve(y, point.conv.conv.weight[:, :middle], point.bn.bn, None)
    return y if block.shortcut is None else y.add_(x)


def _squeeze_excite(se: Any, x: Tensor) -> Tensor:
    from ofa.utils import MyNetwork, make_divisible

    channels = x.shape[1]
    squeezed = make_divisible(channels // se.reduction, divisor=MyNetwork.CHANNEL_DIVISIBLE)
    reduce, expand = se.fc.reduce, se.fc.expand
    y = x.mean((2, 3))
    y = F.relu(F.linear(y, reduce.weight[:squeezed, :channels, 0, 0], reduce.bias[:squeezed]))
    y = F.linear(y, expand.weight[:channels, :squeezed, 0, 0], expand.bias[:channels])
    gate = F.hardsigmoid(y)[:, :, None, None]
    return x * gate if torch.is_grad_enabled() else x.mul_(gate)


def _mbconv_head(net: Any, x: Tensor, convolve: Convolve) -> Tensor:
    if hasattr(net, "final_expand_layer"):
        x = _conv_layer(net.final_expand_layer, x, convolve).mean((2, 3), keepdim=True)
        x = _conv_layer(net.feature_mix_layer, x, convolve).flatten(1)
    else:
        x = _conv_layer(net.feature_mix_layer, x, convolve).mean((2, 3))
    return net.classifier(x)  # type: ignore[no-any-return]


def _pooled_head(net: Any, x: Tensor, convolve: Convolve) -> Tensor:
    return net.classifier(x.mean((2, 3)))  # type: ignore[no-any-return]
