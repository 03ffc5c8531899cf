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
        # oneDNN's kernel takes rows of padding only where the map itself has as many rows as the kernel.
        rows = pad if x.shape[-2] < kernel else 0
        return _strips(F.pad(x, (pad, pad, rows, rows)), grad, kernel, kernel, pad - rows)
    out = x.new_empty(x.shape[1], 1, kernel, kernel)
    padded = F.pad(x, (pad, pad + stride, pad, pad + stride))
    for row in range(stride):  # taps row, row + stride, ... see every stride-th pixel from `row` on
        for column in range(stride):
            taps = out[:, :, row::stride, column::stride]
            part = padded[:, :, row::stride, column::stride]
            taps.copy_(_strips(part, grad, taps.shape[2], taps.shape[3], 0))
    return out


def _strips(x: Tensor, grad: Tensor, rows: int, columns: int, pad: int) -> Tensor:
    """Take the gradient of a (rows, columns) kernel at stride 1; x is padded but for `pad` rows above and below."""
    channels, (height, width) = x.shape[1], grad.shape[-2:]
    x = x[:, :, : height + rows - 1 - 2 * pad]
    out = x.new_empty(channels, 1, rows, columns)
    for left in range(0, columns, STRIP):
        wide = min(STRIP, columns - left)
        part = x[:, :, :, left : left + width + wide - 1].contiguous(memory_format=torch.channels_last)
        strip = x.new_empty(channels, 1, rows, wide)
        out[:, :, :, left : left + wide] = _convolution_backward(grad, part, strip, 1, (pad, 0), (False, True))[1]
    return out


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
