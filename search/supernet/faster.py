"""Make a plain network train faster on a CPU: its weights, names and outputs (up to rounding) stay.

Enters: any module with depthwise convolutions, such as a subnet that was cut out. Leaves: the same one. Depthwise
kernels wider than 3 get the quick weight gradient of `depthwise.py`; the `ofa` package's hard-swish and hard-sigmoid,
four passes each, become torch's one.
"""

from __future__ import annotations

from torch import Tensor, nn

from .depthwise import STRIP, depthwise


class QuickDepthwise(nn.Conv2d):
    """A depthwise convolution of an odd square kernel, padded to `same`; otherwise the `nn.Conv2d` that it was."""

    def forward(self, input: Tensor) -> Tensor:
        return depthwise(input, self.weight, self.stride[0])


def quicken(net: nn.Module) -> nn.Module:
    """Swap the classes of slow layers in place and give the network back."""
    from ofa.utils.pytorch_modules import Hsigmoid, Hswish

    for module in net.modules():
        if type(module) is nn.Conv2d and _is_wide_depthwise(module):
            module.__class__ = QuickDepthwise
        elif isinstance(module, Hswish):
            _become(module, nn.Hardswish)
            module.inplace = False
        elif isinstance(module, Hsigmoid):
            _become(module, nn.Hardsigmoid)
            module.inplace = False
    return net


def unquicken(net: nn.Module) -> nn.Module:
    """Make depthwise convolutions plain again, in place: ONNX has no name for the quick ones."""
    for module in [module for module in net.modules() if isinstance(module, QuickDepthwise)]:
        _become(module, nn.Conv2d)
    return net


def _is_wide_depthwise(conv: nn.Conv2d) -> bool:
    kernel, stride = conv.kernel_size, conv.stride
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and kernel[0] == kernel[1] > STRIP
        and kernel[0] % 2 == 1
        and stride[0] == stride[1]
        and conv.padding == (kernel[0] // 2, kernel[1] // 2)
        and conv.padding_mode == "zeros"
        and conv.dilation == (1, 1)
        and conv.bias is None
    )


def _become(module: nn.Module, kind: type[nn.Module]) -> None:
    module.__class__ = kind
