"""Inverted bottlenecks for microcontrollers: narrow, no squeeze-and-excitation, ReLU6, one to three blocks a stage.

Kernels, expand ratios and base widths are MCUNet's (Lin et al., NeurIPS 2020), times .25, .35 or .5; MCUNet has two to
four blocks a stage. Convolution, depthwise convolution, addition, mean and a linear layer are all that they run.
"""

from __future__ import annotations

from tutelage.records import SLOTS

from .definition import Space
from .family import Family, Stage, scaled

MBCONV_MICRO = Family(
    name="mbconv_micro",
    style="mbconv",
    stages=tuple(
        Stage(stride, False, "relu6", *slots)
        for stride, slots in zip((2, 2, 2, 1, 2), SLOTS["mbconv_micro"], strict=True)
    ),
    act="relu6",
    first_act="relu6",
)
# Stem, first block, five stages, the head's convolution.
_BASE_WIDTHS = (32, 16, 24, 40, 80, 96, 192, 320)


def _space(name: str, multiplier: float) -> Space:
    return Space(
        name=name,
        family=MBCONV_MICRO,
        kernels=(3, 5, 7),
        expands=(3, 4, 6),
        depths=(0, 1, 2),
        widths=scaled(_BASE_WIDTHS, multiplier),
        stem_stride=2,
        resolutions=tuple(range(48, 161, 16)),
    )


W025 = _space("mbconv_micro_w0.25", 0.25)
W035 = _space("mbconv_micro_w0.35", 0.35)
W050 = _space("mbconv_micro_w0.5", 0.5)
