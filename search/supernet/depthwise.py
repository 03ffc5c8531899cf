"""Depthwise convolution whose weight gradient is quick on CPUs.

Enters: maps and one kernel a channel. Leaves: the convolved maps, with gradients equal to the ordinary convolution's.
oneDNN has a depthwise kernel for weight gradients up to three columns wide; wider ones (5x5, 7x7) fall to a grouped
convolution that pads every channel to 16 and takes some 20 times as long. So the gradient is taken in strips of at most
three columns; a strided convolution is first split by parity into convolutions of stride 1.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP = 3  # columns that oneDNN's depthwise weight gradient takes at once


def depthwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Convolve each channel of x (n, channels, side, side) with weight (channels, 1, kernel, kernel), padded to `same`.

    Under autocast it stays in float32.
    """
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return depthwise(x.float(), weight.float(), stride)
    kernel = weight.shape[-1]
    reach = x.shape[-1] - 1  # taps further out than this meet padding alone
    if kernel // 2 > reach:
        cut = kernel // 2 - reach
        weight = weight[:, :, cut : kernel - cut, cut : kernel - cut]
        kernel -= 2 * cut
    if kernel == 1:
        return x * weight.view(1, -1, 1, 1)
    if kernel > STRIP and x.device.type == "cpu" and torch.is_grad_enabled():
        convolved: Tensor = _Depthwise.apply(x, weight, stride)
        return convolved
    return F.conv2d(x, weight, None, stride, kernel // 2, 1, x.shape[1])


class _Depthwise(torch.autograd.Function):
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
        return _strips(F.pad(x, (pad, pad, 0, 0)), grad, kernel, kernel, pad)
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
