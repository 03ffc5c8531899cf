"""Inverted bottlenecks for small images: no squeeze-and-excitation, ReLU, one to four blocks a stage.

The blocks are MobileNetV2's (Sandler et al., CVPR 2018). Once for All's MobileNetV3 spaces are made for 224 px: their
smallest subnet has eleven blocks, this one's five.
"""

from __future__ import annotations

from tutelage.records import SLOTS

from .definition import Space
from .family import RESOLUTIONS, Family, Stage, scaled

MBCONV_SMALL = Family(
    name="mbconv_small",
    style="mbconv",
    stages=tuple(
        Stage(stride, False, "relu", *slots) for stride, slots in zip((2, 2, 1, 2), SLOTS["mbconv_small"], strict=True)
    ),
    act="relu",
    first_shortcut=True,
)
# Stem, first block, four stages, the head's convolution.
_BASE_WIDTHS = (16, 16, 24, 32, 64, 128, 512)


def _space(name: str, multiplier: float, stem_stride: int) -> Space:
    return Space(
        name=name,
        family=MBCONV_SMALL,
        kernels=(3, 5),
        expands=(2, 4, 6),
        depths=(0, 1, 2, 3),
        widths=scaled(_BASE_WIDTHS, multiplier),
        stem_stride=stem_stride,
        resolutions=RESOLUTIONS,
    )


W100 = _space("mbconv_small_w1.0", 1.0, 2)
W100_STEM1 = _space("mbconv_small_w1.0_stem1", 1.0, 1)
