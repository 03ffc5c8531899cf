"""Supernets: build one, train it, set the active subnet, extract it, calibrate and score.

Subnets come out as plain `nn.Module`s.
"""

from .block_modules import build_block
from .elastic import build_arch, build_supernet, extract, set_active
from .forward import forward_subnet
from .scoring import SubnetScore, recalibrate_bn, score_subnets
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
