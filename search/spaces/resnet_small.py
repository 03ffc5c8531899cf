"""Residual networks of CIFAR-10 with elastic depths and inner widths (He et al., CVPR 2016, section 4.2).

Blocks of two plain 3x3 convolutions in three stages, one to four a stage. Shortcuts are identities, and 1x1 projections
with batch norm where the shape changes: option B of the paper's section 3.3, which every converter knows. The preset
ResNet-20-B is the paper's ResNet-20 with these projections, 2,752 parameters more than with its option A (shortcuts
subsampled and padded with zeros), which the network `ResNet-20` of the zoo has.
"""

from __future__ import annotations

from tutelage.records import SLOTS, Arch

from .definition import Space
from .family import RESOLUTIONS, Family, Stage, scaled

PRESETS = {"ResNet-20-B": Arch(space="resnet_small_w1.0_stem1", d=(2, 2, 2), e=(1,) * 9, r=32)}

RESNET_SMALL = Family(
    name="resnet_small",
    style="basic",
    stages=tuple(
        Stage(stride, False, "relu", *slots) for stride, slots in zip((1, 2, 2), SLOTS["resnet_small"], strict=True)
    ),
    act="relu",
    presets=PRESETS,
)
# Stem, three stages.
_BASE_WIDTHS = (16, 16, 32, 64)


def _space(name: str, multiplier: float, stem_stride: int) -> Space:
    return Space(
        name=name,
        family=RESNET_SMALL,
        kernels=(3,),
        expands=(0.5, 1, 1.5),
        depths=(0, 1, 2, 3),
        widths=scaled(_BASE_WIDTHS, multiplier),
        stem_stride=stem_stride,
        resolutions=RESOLUTIONS,
    )


W100 = _space("resnet_small_w1.0", 1.0, 2)
W100_STEM1 = _space("resnet_small_w1.0_stem1", 1.0, 1)
W150_STEM1 = _space("resnet_small_w1.5_stem1", 1.5, 1)
