"""Sort channels by importance before progressive shrinking opens narrower subnets, which keep the first channels.

Source: Once-for-All (Cai et al., ICLR 2020), section 3.3: a channel is as important as the L1 norm of the weights that
read it, and is sorted again in every phase that opens a width. `reorganise` leaves the outputs of the largest subnet
as they are. MobileNet-like spaces are sorted by the `ofa` package; its ResNet50D sorts no widths and knows nothing of
bottlenecks that narrow with the width, and it has no basic blocks, so those families are sorted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class _Channel(NamedTuple):
    """Tensors that hold the same channels along a dimension."""

    produced: list[tuple[Tensor, int]]
    read: list[tuple[Tensor, int]]


def reorganise(net: nn.Module, opened: int) -> None:
    """Sort the channels of a supernet in place, the most important first.

    `opened` is how many of the largest expand ratios (and widths) were trained so far, at least 1: channels do not
    cross a boundary between them, since the subnets that were trained would lose what they learnt. (The package sorts
    the inner channels of squeeze-and-excitation anew all the same, which moves those subnets by a few per mille.)
    Optimiser moments and averages that belong to channels are the caller's to reset.
    """
    elastic: Any = net
    style = elastic.space.family.style
    if style == "mbconv":
        elastic.re_organize_middle_weights(expand_ratio_stage=opened - 1)
        return
    with torch.no_grad():
        for channel, widths in (_basic_channels if style == "basic" else _resnet_channels)(elastic, opened):
            _sort(channel, widths)


def importance_order(importance: Tensor, trained: Sequence[int]) -> Tensor:
    """Give channel indices (channels,) by falling importance inside each of the stretches that `trained` widths end."""
    edges = sorted({0, *trained, len(importance)})
    stretches = [
        first + torch.argsort(importance[first:end], descending=True, stable=True) for first, end in pairwise(edges)
    ]
    return torch.cat(stretches)


def _sort(channel: _Channel, trained: Sequence[int]) -> None:
    importance = sum(
        tensor.abs().sum([dim for dim in range(tensor.ndim) if dim != along]) for tensor, along in channel.read
    )
    assert isinstance(importance, Tensor)
    order = importance_order(importance, trained)
    for tensor, along in [*channel.produced, *channel.read]:
        tensor.copy_(tensor.index_select(along, order))


def _resnet_channels(net: Any, opened: int) -> list[tuple[_Channel, list[int]]]:
    """List the channels of a ResNet50D that a width or an expand ratio cuts, with the widths trained so far."""
    first, second, third = net.input_stem[0], net.input_stem[1].conv, net.input_stem[2]
    stages = [[net.blocks[index] for index in indices] for indices in net.grouped_block_index]
    inner = _Channel(_outputs(first) + _outputs(second), _inputs(second) + _inputs(third))
    entering = _Channel(_outputs(third), _entrance(stages[0][0]))
    channels = [(inner, first.out_channel_list[-opened:]), (entering, third.out_channel_list[-opened:])]
    for place, blocks in enumerate(stages):
        produced = _outputs(blocks[0].downsample) + [pair for block in blocks for pair in _outputs(block.conv3)]
        read = [pair for block in blocks[1:] for pair in _inputs(block.conv1)]
        last = place + 1 == len(stages)
        read += [(net.classifier.linear.linear.weight, 1)] if last else _entrance(stages[place + 1][0])
        widths = blocks[0].out_channel_list[-opened:]
        channels.append((_Channel(produced, read), widths))
        for block in blocks:
            middles = _middles(widths, block.expand_ratio_list[-opened:])
            channels.append((_Channel(_outputs(block.conv2), _inputs(block.conv3)), middles))
            channels.append((_Channel(_outputs(block.conv1), _inputs(block.conv2)), middles))
    return channels


def _basic_channels(net: Any, opened: int) -> list[tuple[_Channel, list[int]]]:
    """List the inner channels of basic blocks, with the widths trained so far."""
    return [
        (_Channel(_outputs(block.conv1), _inputs(block.conv2)), sorted(block.middles.values())[-opened:])
        for block in net.blocks
    ]


def _middles(widths: Sequence[int], expands: Sequence[float]) -> list[int]:
    from ofa.utils import MyNetwork, make_divisible

    return [make_divisible(round(w * e), MyNetwork.CHANNEL_DIVISIBLE) for w in widths for e in expands]


def _entrance(block: Any) -> list[tuple[Tensor, int]]:
    return _inputs(block.conv1) + _inputs(block.downsample)


def _inputs(layer: Any) -> list[tuple[Tensor, int]]:
    return [(layer.conv.conv.weight, 1)]


def _outputs(layer: Any) -> list[tuple[Tensor, int]]:
    bn = layer.bn.bn
    return [(layer.conv.conv.weight, 0), *((t, 0) for t in (bn.weight, bn.bias, bn.running_mean, bn.running_var))]
