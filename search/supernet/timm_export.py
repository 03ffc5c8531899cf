"""Turn an extracted MobileNetV3 subnet into timm's `MobileNetV3`: a maintained class with the same outputs.

Enters: a subnet of the mbv3 spaces and its arch. Leaves: a timm model holding copies of its weights.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.records import Arch, InputError


def to_timm(subnet: nn.Module, arch: Arch, *, exact: bool = True) -> nn.Module:
    """Build timm's `MobileNetV3` with the subnet's weights; dropout and training mode are taken over.

    With `exact` the activations, gates and poolings sum in the order of the `ofa` package, and outputs in eval mode are
    equal to the bit. Without it timm's own faster ones are used, equal up to rounding.
    Raises `InputError` for a subnet of another family.
    """
    from timm.layers import make_divisible
    from timm.models._efficientnet_builder import decode_arch_def
    from timm.models.mobilenetv3 import MobileNetV3

    source: Any = subnet
    if not hasattr(source, "final_expand_layer") or hasattr(source, "block_group_info"):
        raise InputError(f"{arch.space} / {type(subnet).__name__}: to_timm takes a subnet extracted from an mbv3 space")
    from ofa.utils import Hswish
    from timm.models._efficientnet_blocks import SqueezeExcite

    squeeze = partial(
        _TwoStepSqueezeExcite if exact else SqueezeExcite,
        gate_layer="hard_sigmoid",
        force_act_layer=nn.ReLU,
        rd_round_fn=partial(make_divisible, divisor=8, round_limit=0.9),
    )
    bn = source.first_conv.bn
    model: Any = MobileNetV3(
        decode_arch_def(arch_strings(source)),
        num_classes=source.classifier.out_features,
        in_chans=source.first_conv.conv.in_channels,
        stem_size=source.first_conv.out_channels,
        fix_stem=True,
        num_features=source.feature_mix_layer.out_channels,
        head_bias=False,
        act_layer=Hswish if exact else nn.Hardswish,
        norm_layer=partial(nn.BatchNorm2d, eps=bn.eps, momentum=bn.momentum),
        se_layer=squeeze,
        round_chs_fn=int,  # the strings hold exact widths
        drop_rate=source.classifier.dropout_rate,
    )
    model.conv_stem.stride = source.first_conv.conv.stride
    if exact:
        model.global_pool = _TwoStepPool()
    state = source.state_dict()
    model.load_state_dict({theirs: state[ours].clone() for theirs, ours in _names(source, model).items()})
    return model.train(subnet.training)  # type: ignore[no-any-return]


def arch_strings(source: Any) -> list[list[str]]:
    """Write the subnet in timm's block strings, one list a stage, e.g. `ir_r1_k5_s2_e4_c40_se0.25_nre`."""
    stages: list[list[str]] = []
    for index, block in enumerate(source.blocks):
        conv = block.conv
        kind, expand = ("ds", 1) if conv.inverted_bottleneck is None else ("ir", conv.expand_ratio)
        text = f"{kind}_r1_k{conv.kernel_size}_s{conv.stride}_e{expand:g}_c{conv.out_channels}"
        text += "_se0.25" * bool(conv.use_se) + "_nre" * (conv.act_func == "relu")
        text += "_noskip" * (block.shortcut is None and conv.stride == 1 and conv.in_channels == conv.out_channels)
        if index <= 1 or block.shortcut is None:
            stages.append([])
        stages[-1].append(text)
    return [*stages, [f"cn_r1_k1_s1_c{source.final_expand_layer.out_channels}"]]


def _names(source: Any, model: Any) -> dict[str, str]:
    """Map every name of the timm state dict to ours."""
    wide = {
        "conv_pw": "inverted_bottleneck.conv",
        "bn1": "inverted_bottleneck.bn",
        "conv_dw": "depth_conv.conv",
        "bn2": "depth_conv.bn",
        "se.conv_reduce": "depth_conv.se.fc.reduce",
        "se.conv_expand": "depth_conv.se.fc.expand",
        "conv_pwl": "point_linear.conv",
        "bn3": "point_linear.bn",
    }
    narrow = {
        "conv_dw": "depth_conv.conv",
        "bn1": "depth_conv.bn",
        "conv_pw": "point_linear.conv",
        "bn2": "point_linear.bn",
    }
    modules = {
        "conv_stem": "first_conv.conv",
        "bn1": "first_conv.bn",
        f"blocks.{len(model.blocks) - 1}.0.conv": "final_expand_layer.conv",
        f"blocks.{len(model.blocks) - 1}.0.bn1": "final_expand_layer.bn",
        "conv_head": "feature_mix_layer.conv",
        "classifier": "classifier.linear",
    }
    index = 0
    for stage, blocks in enumerate(list(model.blocks)[:-1]):
        for position in range(len(blocks)):
            parts = narrow if source.blocks[index].conv.inverted_bottleneck is None else wide
            modules |= {f"blocks.{stage}.{position}.{t}": f"blocks.{index}.conv.{o}" for t, o in parts.items()}
            index += 1
    split = [name.rpartition(".") for name in model.state_dict()]
    return {f"{module}.{tensor}": f"{modules[module]}.{tensor}" for module, _, tensor in split}


def _two_step_mean(x: Tensor) -> Tensor:
    """Average (n, channels, h, w) over rows, then columns: another order of sums rounds differently."""
    return torch.mean(torch.mean(x, 3, keepdim=True), 2, keepdim=True)


class _TwoStepPool(nn.Module):
    """Stands for timm's pooling: (n, channels, h, w) to (n, channels, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Average in two steps."""
        return _two_step_mean(x)


class _TwoStepSqueezeExcite(nn.Module):
    """timm's `SqueezeExcite` (same names, so the same state dict) that averages in two steps."""

    def __init__(self, in_chs: int, rd_round_fn: Any, **options: Any) -> None:
        super().__init__()
        from timm.models._efficientnet_blocks import SqueezeExcite

        inner = SqueezeExcite(in_chs, rd_round_fn=rd_round_fn, **options)
        self.conv_reduce, self.act1 = inner.conv_reduce, inner.act1
        self.conv_expand, self.gate = inner.conv_expand, inner.gate

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel of (n, channels, h, w) by its gate."""
        y = self.conv_expand(self.act1(self.conv_reduce(_two_step_mean(x))))
        gated: Tensor = x * self.gate(y)
        return gated
