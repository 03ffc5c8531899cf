"""Once for All's ResNet50D space: elastic depths, bottleneck ratios and widths (the package `ofa`, `OFAResNets`).

The inner widths 0 and 1 of the stem are both 24 channels: two archs by name, the same layers.
"""

from __future__ import annotations

from tutelage.records import SLOTS

from .definition import Space
from .family import RESOLUTIONS, Family, Stage, divisible, scaled

RESNET50 = Family(
    name="resnet50",
    style="bottleneck",
    stages=tuple(
        Stage(stride, False, "relu", *slots) for stride, slots in zip((1, 2, 2, 2), SLOTS["ofa_resnet50"], strict=True)
    ),
    act="relu",
)

_MULTIPLIERS = (0.65, 0.8, 1.0)
_STEM = scaled((64,), *_MULTIPLIERS)[0]

SPACE = Space(
    name="ofa_resnet50",
    family=RESNET50,
    kernels=(3,),
    expands=(0.2, 0.25, 0.35),
    depths=(0, 1, 2),
    widths=(
        tuple(divisible(width // 2) for width in _STEM),
        _STEM,
        *scaled((256, 512, 1024, 2048), *_MULTIPLIERS),
    ),
    stem_stride=2,
    resolutions=RESOLUTIONS,
)
