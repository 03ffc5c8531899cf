"""Residual networks of ResNet-18's four stages with elastic depths and inner widths (He et al., CVPR 2016, table 1).

A convolution of 3x3, then blocks of two plain 3x3 convolutions, one to three a stage: ResNet-10 has one in each,
ResNet-18 two. The multiplier is of ResNet-18's widths, 64 to 512. Shortcuts are identities, and 1x1 projections with
batch norm where the shape changes. Made for small images: the stem has no pooling and no 7x7 convolution.
"""

from __future__ import annotations

from tutelage.records import SLOTS

from .definition import Space
from .family import RESOLUTIONS, Family, Stage, scaled

RESNET_18 = Family(
    name="resnet18",
    style="basic",
    stages=tuple(
        Stage(stride, False, "relu", *slots) for stride, slots in zip((1, 2, 2, 2), SLOTS["resnet18"], strict=True)
    ),
    act="relu",
)
# Stem, four stages.
_BASE_WIDTHS = (64, 64, 128, 256, 512)


def _space(multiplier: float, stem_stride: int) -> Space:
    return Space(
        name=f"resnet18_w{multiplier:g}" + ("_stem1" if stem_stride == 1 else ""),
        family=RESNET_18,
        kernels=(3,),
        expands=(0.5, 1, 1.5),
        depths=(0, 1, 2),
        widths=scaled(_BASE_WIDTHS, multiplier),
        stem_stride=stem_stride,
        resolutions=RESOLUTIONS,
    )


W25 = _space(0.25, 2)
W25_STEM1 = _space(0.25, 1)
W50 = _space(0.5, 2)
W50_STEM1 = _space(0.5, 1)
