"""The ResNets of CIFAR-10 (He et al., CVPR 2016, section 4.2), which timm lacks: 6n + 2 layers, 16 to 64 channels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

_WIDTHS = (16, 32, 64)


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut without weights (option A): subsampled, zeros in the new channels."""

    def __init__(self, inp: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inp, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.act = nn.ReLU()
        self.stride, self.added = stride, out - inp

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inp, side, side) to (batch, out, side / stride, side / stride)."""
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        if self.added:
            half = self.added // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.added - half))
        out: Tensor = self.act(x + y)
        return out


class CifarResNet(nn.Module):
    """A ResNet of 6n + 2 layers for images of 32 px, (batch, in_chans, 32, 32) -> logits (batch, num_classes)."""

    def __init__(self, depth: int, num_classes: int, in_chans: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, _WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.act = nn.ReLU()
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        before = _WIDTHS[0]
        for stage, width in enumerate(_WIDTHS):
            for place in range((depth - 2) // 6):
                blocks[f"{stage}_{place}"] = _Block(before, width, 2 if stage and place == 0 else 1)
                before = width
        self.layers = nn.Sequential(blocks)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.default_cfg = {"first_conv": "conv1", "classifier": "fc", "input_size": (3, 32, 32)}

    def forward(self, x: Tensor) -> Tensor:
        """Give the logits of images."""
        features = self.layers(self.act(self.bn1(self.conv1(x))))
        logits: Tensor = self.fc(self.drop(self.global_pool(features).flatten(1)))
        return logits


def cifar_resnet(depth: int) -> Callable[..., nn.Module]:
    """Give the function that builds the ResNet of a depth, 6n + 2."""

    def build(num_classes: int = 10, in_chans: int = 3, drop_rate: float = 0.0) -> nn.Module:
        """Build it for a number of classes and channels."""
        return CifarResNet(depth, num_classes, in_chans, drop_rate)

    return build
