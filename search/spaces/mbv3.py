"""Once for All's MobileNetV3 spaces (Cai et al., ICLR 2020) and the subnets of them that papers published.

OFA-595 is the specialised subnet `flops@595M_top1@80.0_finetune@75` of Once for All; EEEA-Net-C1 and C2 are of EEEA-Net
(Termritthikun et al., 2021). Lists are compact: one entry a block.
"""

from __future__ import annotations

from tutelage.records import SLOTS, Arch

from .definition import Space
from .family import RESOLUTIONS, Family, Stage, scaled

PRESETS = {
    "OFA-595": Arch(
        space="ofa_mbv3_w1.2",
        d=(3, 4, 4, 4, 4),
        ks=(3, 5, 3, 5, 5, 3, 5, 7, 5, 3, 5, 3, 5, 7, 3, 3, 3, 5, 3),
        e=(3, 4, 3, 4, 4, 6, 3, 6, 6, 3, 4, 6, 6, 6, 4, 6, 6, 6, 3),
        r=236,
    ),
    "EEEA-Net-C1": Arch(
        space="ofa_mbv3_w1.0",
        d=(2, 2, 2, 2, 4),
        ks=(3, 5, 7, 5, 7, 7, 5, 3, 7, 3, 3, 7),
        e=(3, 3, 3, 3, 3, 4, 4, 4, 6, 4, 6, 3),
        r=192,
    ),
    "EEEA-Net-C2": Arch(
        space="ofa_mbv3_w1.0",
        d=(3, 3, 4, 4, 4),
        ks=(3, 5, 3, 7, 3, 7, 5, 7, 5, 3, 7, 5, 3, 3, 5, 3, 5, 7),
        e=(3, 4, 3, 4, 3, 3, 6, 6, 3, 3, 6, 4, 3, 3, 6, 6, 6, 3),
        r=192,
    ),
}

_FIXED = (  # stride, squeeze-and-excitation, activation of each stage
    (2, False, "relu"),
    (2, True, "relu"),
    (2, False, "h_swish"),
    (1, True, "h_swish"),
    (2, True, "h_swish"),
)
MBV3 = Family(
    name="mbv3",
    style="mbconv",
    stages=tuple(Stage(*fixed, *slots) for fixed, slots in zip(_FIXED, SLOTS["ofa_mbv3"], strict=True)),
    act="h_swish",
    first_act="relu",
    first_shortcut=True,
    presets=PRESETS,
)
# Stem, first block, five stages, the two convolutions of the head.
_BASE_WIDTHS = (16, 16, 24, 40, 80, 112, 160, 960, 1280)


def _space(name: str, multiplier: float, stem_stride: int) -> Space:
    return Space(
        name=name,
        family=MBV3,
        kernels=(3, 5, 7),
        expands=(3, 4, 6),
        depths=(2, 3, 4),
        widths=scaled(_BASE_WIDTHS, multiplier),
        stem_stride=stem_stride,
        resolutions=RESOLUTIONS,
    )


# A stem of stride 1 keeps the maps of small images (28 px) large enough for the stages.
W100 = _space("ofa_mbv3_w1.0", 1.0, 2)
W120 = _space("ofa_mbv3_w1.2", 1.2, 2)
W075 = _space("ofa_mbv3_w0.75", 0.75, 2)
W075_STEM1 = _space("ofa_mbv3_w0.75_stem1", 0.75, 1)
W100_STEM1 = _space("ofa_mbv3_w1.0_stem1", 1.0, 1)
W120_STEM1 = _space("ofa_mbv3_w1.2_stem1", 1.2, 1)
