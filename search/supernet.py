"""The door to supernets: build one, switch subnets, cut one out, calibrate and score.

Enters: spaces, archs, images. Leaves: plain `nn.Module`s and scores. The work is done in the modules named below.
"""

from .block_modules import build_block
from .elastic import build_arch, build_supernet, extract, set_active
from .fast_supernet import forward_subnet
from .score import SubnetScore, recalibrate_bn, score_subnets
from .timm_export import to_timm

__all__ = [
    "SubnetScore",
    "build_arch",
    "build_block",
    "build_supernet",
    "extract",
    "forward_subnet",
    "recalibrate_bn",
    "score_subnets",
    "set_active",
    "to_timm",
]
