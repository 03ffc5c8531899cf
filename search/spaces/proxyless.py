"""Once for All's ProxylessNAS space (Cai et al., ICLR 2019 and 2020): its last stage is one block of fixed depth."""

from __future__ import annotations

from tutelage.records import SLOTS

from .definition import Space
from .family import RESOLUTIONS, Family, Stage, scaled

PROXYLESS = Family(
    name="proxyless",
    style="mbconv",
    stages=tuple(
        Stage(stride, False, "relu6", *slots)
        for stride, slots in zip((2, 2, 2, 1, 2, 1), SLOTS["ofa_proxyless"], strict=True)
    ),
    act="relu6",
    first_act="relu6",
    bn_eps=1e-3,
)

SPACE = Space(
    name="ofa_proxyless_w1.3",
    family=PROXYLESS,
    kernels=(3, 5, 7),
    expands=(3, 4, 6),
    depths=(2, 3, 4),
    widths=scaled((32, 16, 24, 40, 80, 96, 192, 320, 1280), 1.3),
    stem_stride=2,
    resolutions=RESOLUTIONS,
)
