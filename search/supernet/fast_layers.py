"""Layers that train faster on a CPU with the same weights, names and outputs (up to rounding).

`use_fast_layers` swaps them into any network with depthwise convolutions, such as an extracted subnet; `depthwise` is
the convolution itself. oneDNN has a depthwise kernel for weight gradients up to three columns wide and no larger than
the map; others (5x5, 7x7, 3x3 on 2x2) use a grouped convolution that pads every channel to 16 and takes 20 to 100 times
as long. So the gradient is taken in strips of at most three columns; a strided convolution is first split by parity
into convolutions of stride 1. The `ofa` package's hard-swish and hard-sigmoid, four passes each, become torch's one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIP = 3  # columns that oneDNN's depthwise weight gradient takes at once


def depthwise(x: Tensor, weight: Tensor, stride: int, bias: Tensor | None = None) -> Tensor:
    """Convolve each channel of x (n, channels, side, side) with weight (channels, 1, kernel, kernel), padded to `same`.

    `bias` is (channels,). Under autocast on a CPU it stays in float32: oneDNN's strided ones in bfloat16 take a hundred
    times as long.
    """
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return depthwise(x.float(), weight.float(), stride, bias)
    kernel = weight.shape[-1]
    reach = x.shape[-1] - 1  # taps further out than this meet padding alone
    if kernel // 2 > reach:
        margin = kernel // 2 - reach
        weight = weight[:, :, margin : kernel - margin, margin : kernel - margin]
        kernel -= 2 * margin
    if kernel == 1:
        scaled = x * weight.view(1, -1, 1, 1).to(x.dtype)
        return scaled if bias is None else scaled + bias[:, None, None].to(x.dtype)
    slow = kernel > STRIP or x.shape[-1] < kernel
    if slow and bias is None and x.device.type == "cpu" and torch.is_grad_enabled():
        convolved: Tensor = _Depthwise.apply(x, weight, stride)
        return convolved
    return F.conv2d(x, weight, bias, stride, kernel // 2, 1, x.shape[1])


class _Depthwise(torch.autograd.Function):
    """The convolution of `depthwise` with a gradient by the weights that oneDNN has a kernel for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        grad = grad.contiguous(memory_format=torch.channels_last)
        by_input = by_weight = None
        if ctx.needs_input_grad[0]:
            padding = weight.shape[-1] // 2
            by_input, _, _ = _convolution_backward(grad, x, weight, ctx.stride, (padding, padding), (True, False))
        if ctx.needs_input_grad[1]:
            by_weight = weight_gradient(x, grad, weight.shape[-1], ctx.stride)
        return by_input, by_weight, None


def weight_gradient(x: Tensor, grad: Tensor, kernel: int, stride: int) -> Tensor:
    """Give the gradient (channels, 1, kernel, kernel) for outputs whose gradient is `grad` (n, channels, out, out)."""
    pad = kernel // 2
    if stride == 1:
        return _by_strips(x, grad, (kernel, kernel), (pad, pad), 1)
    out = x.new_empty(x.shape[1], 1, kernel, kernel)
    for row in range(stride):  # taps row, row + stride, ... see every stride-th pixel from `row` on
        for column in range(stride):
            taps = len(range(row, kernel, stride)), len(range(column, kernel, stride))
            out[:, :, row::stride, column::stride] = _by_strips(x, grad, taps, (pad - row, pad - column), stride)
    return out


def _by_strips(x: Tensor, grad: Tensor, taps: tuple[int, int], before: tuple[int, int], step: int) -> Tensor:
    """Take the gradient of so many (rows, columns) of taps, each `step` pixels from the next.

    The first tap of the first output meets the pixel that lies `before` = (rows, columns) above and left of the map.
    """
    rows, columns = taps
    channels, (height, width) = x.shape[1], grad.shape[-2:]
    # oneDNN pads rows itself where the map has as many as the kernel.
    own_rows = before[0] if step == 1 and x.shape[-2] >= rows else 0
    out = x.new_empty(channels, 1, rows, columns)
    for left, wide in _strips(columns):
        strip = x.new_empty(channels, 1, rows, wide)
        if own_rows and before[1] - left == wide // 2 and wide % 2:
            part, padding = x, (own_rows, wide // 2)  # the middle strip of an odd kernel is padded alike on both sides
        else:
            over = _places(own_rows - before[0], height + rows - 1 - 2 * own_rows, step)
            across = _places(step * left - before[1], width + wide - 1, step)
            part, padding = _window(x, over, across), (own_rows, 0)
        out[:, :, :, left : left + wide] = _convolution_backward(grad, part, strip, 1, padding, (False, True))[1]
    return out


def _strips(columns: int) -> list[tuple[int, int]]:
    """Divide columns into strips of at most `STRIP`: the first column and the width of each."""
    if columns == 2 * STRIP + 1:
        return [(0, 2), (2, 3), (5, 2)]  # with one in the middle, which needs no copy
    return [(left, min(STRIP, columns - left)) for left in range(0, columns, STRIP)]


def _places(first: int, num: int, step: int) -> range:
    """Give the positions of `num` pixels along one side, some of which may lie outside of the map."""
    return range(first, first + step * num, step)


def _window(x: Tensor, rows: range, columns: range) -> Tensor:
    """Copy the pixels at these rows and columns (n, channels, rows, columns), zeros outside of the map.

    In one pass: to pad the whole map first writes it twice more.
    """
    shape = (*x.shape[:2], len(rows), len(columns))
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    top, bottom = _within(rows, x.shape[2])
    left, right = _within(columns, x.shape[3])
    for outside in (out[:, :, :top], out[:, :, bottom:], out[:, :, top:bottom, :left], out[:, :, top:bottom, right:]):
        outside.zero_()
    if bottom > top and right > left:
        over, across = rows[top:bottom], columns[left:right]
        seen = x[:, :, over[0] : over[-1] + 1 : over.step, across[0] : across[-1] + 1 : across.step]
        out[:, :, top:bottom, left:right] = seen
    return out


def _within(positions: range, size: int) -> tuple[int, int]:
    """Give the slice of the positions that lie on a side of `size` pixels."""
    inside = [index for index, position in enumerate(positions) if 0 <= position < size]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], wanted: tuple[bool, bool]
) -> Any:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, list(padding), [1, 1], False, [0, 0], x.shape[1], [*wanted, False]
    )


class FastDepthwise(nn.Conv2d):
    """A depthwise convolution of an odd square kernel, padded to `same`; otherwise the `nn.Conv2d` that it was."""

    def forward(self, input: Tensor) -> Tensor:
        return depthwise(input, self.weight, self.stride[0])


def use_fast_layers(net: nn.Module) -> nn.Module:
    """Swap the classes of slow layers in place and give the network back."""
    from ofa.utils.pytorch_modules import Hsigmoid, Hswish

    for module in net.modules():
        if type(module) is nn.Conv2d and _is_same_depthwise(module):
            module.__class__ = FastDepthwise
        elif isinstance(module, Hswish):
            _become(module, nn.Hardswish)
            module.inplace = False
        elif isinstance(module, Hsigmoid):
            _become(module, nn.Hardsigmoid)
            module.inplace = False
    return net


def use_plain_layers(net: nn.Module) -> nn.Module:
    """Make depthwise convolutions plain again, in place: ONNX has no name for the fast ones."""
    for module in [module for module in net.modules() if isinstance(module, FastDepthwise)]:
        _become(module, nn.Conv2d)
    return net


def _is_same_depthwise(conv: nn.Conv2d) -> bool:
    kernel, stride = conv.kernel_size, conv.stride
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and kernel[0] == kernel[1] > 1
        and kernel[0] % 2 == 1
        and stride[0] == stride[1]
        and conv.padding == (kernel[0] // 2, kernel[1] // 2)
        and conv.padding_mode == "zeros"
        and conv.dilation == (1, 1)
        and conv.bias is None
    )


def _become(module: nn.Module, kind: type[nn.Module]) -> None:
    module.__class__ = kind
