"""ResNet's basic blocks and the networks of them: plain ones, and elastic ones that hold every inner width and depth.

The `ofa` package has no such block. Its elastic convolution and batch norm are used, which take the first channels; so
the state dicts have names like those of its own layers.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.search.spaces.blocks import BlockSpec
from tutelage.search.spaces.definition import Space
from tutelage.search.spaces.family import divisible


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, beside an identity or a 1x1 projection with batch norm."""

    def __init__(self, conv1: nn.Module, conv2: nn.Module, shortcut: nn.Module, act: str) -> None:
        from ofa.utils import build_activation

        super().__init__()
        self.conv1, self.conv2, self.shortcut = conv1, conv2, shortcut
        self.final_act = build_activation(act, inplace=True)
        self.act_func = act

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inp, side, side) to (batch, out, side / stride, side / stride)."""
        residual = self.shortcut(x)
        out: Tensor = self.final_act(self.conv2(self.conv1(x)) + residual)
        return out


class ElasticBasicBlock(BasicBlock):
    """A basic block whose inner width is the output's times one of `expands`, rounded as the space does."""

    def __init__(self, inp: int, out: int, expands: Sequence[float], stride: int, act: str) -> None:
        self.stride, self.out_channels = stride, out
        self.middles = {expand: divisible(round(out * expand)) for expand in expands}
        widest = max(self.middles.values())
        super().__init__(
            _elastic_conv(inp, widest, stride, act), _elastic_conv(widest, out), _shortcut(inp, out, stride), act
        )

    def set_active(self, expand: float) -> None:
        """Make the block compute with that inner width."""
        conv: Any = self.conv1
        conv.conv.active_out_channel = self.middles[expand]

    def active(self) -> BasicBlock:
        """Give the block as it is active, as one of its own with copies of the weights."""
        conv1: Any = self.conv1
        inp, mid = conv1.conv.max_in_channels, conv1.conv.active_out_channel
        plain = plain_block(inp, mid, self.out_channels, 3, self.stride, self.act_func).to(conv1.conv.conv.weight)
        _copy_conv(plain.conv1, self.conv1)
        _copy_conv(plain.conv2, self.conv2)
        plain.shortcut.load_state_dict(self.shortcut.state_dict())
        return plain


class BasicNet(nn.Module):
    """A convolution, basic blocks, average pooling, a classifier: (batch, channels, side, side) -> (batch, classes)."""

    def __init__(self, first_conv: nn.Module, blocks: Iterable[nn.Module], classifier: nn.Module) -> None:
        from ofa.utils import MyGlobalAvgPool2d

        super().__init__()
        self.first_conv, self.blocks, self.classifier = first_conv, nn.ModuleList(blocks), classifier
        self.global_avg_pool = MyGlobalAvgPool2d(keep_dim=False)

    def running_blocks(self) -> list[nn.Module]:
        """List the blocks that `forward` runs, in their order."""
        return list(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Give the logits of images."""
        x = self.first_conv(x)
        for block in self.running_blocks():
            x = block(x)
        logits: Tensor = self.classifier(self.global_avg_pool(x))
        return logits


class ElasticBasicNet(BasicNet):
    """The supernet of a space of basic blocks; `groups` lists the places of each stage's blocks in `blocks`."""

    def __init__(self, space: Space, num_classes: int, in_channels: int, dropout: float) -> None:
        from ofa.utils.layers import ConvLayer, LinearLayer

        family = space.family
        stem, *widths = (choices[0] for choices in space.widths)
        first_conv = ConvLayer(in_channels, stem, 3, stride=space.stem_stride, act_func=family.act)
        self.groups: list[list[int]] = []
        blocks: list[nn.Module] = []
        channels = stem
        for stage, width in zip(family.stages, widths, strict=True):
            self.groups.append(list(range(len(blocks), len(blocks) + stage.num_slots)))
            for position in range(stage.num_slots):
                stride = 1 if position else stage.stride
                blocks.append(ElasticBasicBlock(channels, width, space.expands, stride, stage.act))
                channels = width
        self.runtime_depth = [len(group) for group in self.groups]
        super().__init__(first_conv, blocks, LinearLayer(channels, num_classes, dropout_rate=dropout))

    def running_blocks(self) -> list[nn.Module]:
        """List the blocks of the active subnet, in their order."""
        places = [group[:depth] for group, depth in zip(self.groups, self.runtime_depth, strict=True)]
        return [self.blocks[place] for group in places for place in group]

    def set_active_subnet(self, d: Sequence[int], e: Sequence[float]) -> None:
        """Make a subnet active: `d` blocks of each stage, expand ratios a slot, of which unused ones are not read."""
        self.runtime_depth = list(d)
        for group, depth in zip(self.groups, d, strict=True):
            for place in group[:depth]:
                block: Any = self.blocks[place]
                block.set_active(e[place])

    def get_active_subnet(self) -> BasicNet:
        """Give the active subnet as a network of its own with copies of the weights."""
        from ofa.utils import get_bn_param, set_bn_param

        blocks: list[Any] = self.running_blocks()
        subnet = BasicNet(
            copy.deepcopy(self.first_conv), [block.active() for block in blocks], copy.deepcopy(self.classifier)
        )
        set_bn_param(subnet, **get_bn_param(self))
        return subnet


def plain_net(specs: Sequence[BlockSpec], dropout: float) -> BasicNet:
    """Build the network of an arch's blocks; its weights are still to be drawn."""
    from ofa.utils.layers import ConvLayer, LinearLayer

    stem, *blocks, head = specs
    first_conv = ConvLayer(stem.in_channels, stem.out_channels, stem.kernel, stride=stem.stride, act_func=stem.act)
    layers = [
        plain_block(one.in_channels, one.mid_channels, one.out_channels, one.kernel, one.stride, one.act)
        for one in blocks
    ]
    return BasicNet(first_conv, layers, LinearLayer(head.in_channels, head.num_classes, dropout_rate=dropout))


def plain_block(inp: int, mid: int, out: int, kernel: int, stride: int, act: str) -> BasicBlock:
    """Build a block of fixed widths; its weights are still to be drawn."""
    from ofa.utils.layers import ConvLayer

    conv1 = ConvLayer(inp, mid, kernel, stride=stride, act_func=act)
    return BasicBlock(conv1, ConvLayer(mid, out, 3, act_func=None), _shortcut(inp, out, stride), act)


def _shortcut(inp: int, out: int, stride: int) -> nn.Module:
    from ofa.utils.layers import ConvLayer, IdentityLayer

    same = stride == 1 and inp == out
    shortcut: nn.Module = IdentityLayer(inp, out) if same else ConvLayer(inp, out, 1, stride=stride, act_func=None)
    return shortcut


def _elastic_conv(inp: int, out: int, stride: int = 1, act: str | None = None) -> nn.Module:
    """Build a 3x3 convolution of the first channels with batch norm, named as the package's layers are."""
    from ofa.imagenet_classification.elastic_nn.modules.dynamic_op import DynamicBatchNorm2d, DynamicConv2d
    from ofa.utils import build_activation

    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=DynamicConv2d(inp, out, 3, stride), bn=DynamicBatchNorm2d(out)
    )
    if act is not None:
        layers["act"] = build_activation(act, inplace=True)
    return nn.Sequential(layers)


def _copy_conv(plain: Any, elastic: Any) -> None:
    """Copy the first channels of weights and statistics."""
    out, inp = plain.conv.weight.shape[:2]
    with torch.no_grad():
        plain.conv.weight.copy_(elastic.conv.conv.weight[:out, :inp])
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(plain.bn, name).copy_(getattr(elastic.bn.bn, name)[:out])
