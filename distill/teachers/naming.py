"""Names of tensors in files of other libraries, translated to those of the network that they are for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

# What the `ofa` package's older files, the official subnets among them, call a block's convolution.
_OLD_BLOCK, _BLOCK = ".mobile_inverted_conv.", ".conv."
# EfficientNet-PyTorch (its Lite variants too) and timm: outside of the blocks, and in blocks with and without an
# expansion, which timm numbers its batch norms by.
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDED = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand", "_project_conv": "conv_pwl", "_bn2": "bn3"},
}
_PLAIN = {**_EXPANDED, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_IN_A_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def in_own_names(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a file's names where another library's are recognised; all others stay as they are."""
    own = net.state_dict().keys()
    if "_conv_stem.weight" in state and "conv_stem.weight" in own:
        return _of_efficientnet_pytorch(net, state)
    return {name if name in own else name.replace(_OLD_BLOCK, _BLOCK): value for name, value in state.items()}


def _of_efficientnet_pytorch(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Number the blocks by stage, as timm does, where EfficientNet-PyTorch numbers them through."""
    names = dict.fromkeys(".".join(name.split(".")[:3]) for name in net.state_dict() if name.startswith("blocks."))
    blocks = dict(enumerate(names))
    expanded = {number for number in blocks if f"_blocks.{number}._expand_conv.weight" in state}
    found = {}
    for name, value in state.items():
        inside = _IN_A_BLOCK.fullmatch(name)
        if inside is None:
            module, _, tensor = name.rpartition(".")
            found[f"{_OUTSIDE.get(module, module)}.{tensor}"] = value
            continue
        number, module, tensor = int(inside[1]), inside[2], inside[3]
        table = _EXPANDED if number in expanded else _PLAIN
        found[f"{blocks.get(number, f'_blocks.{number}')}.{table.get(module, module)}.{tensor}"] = value
    return found
