"""Supernets: build one, train it, set its active subnet, extract it, recalibrate batch norm and score.

Subnets come out as plain `nn.Module`s.
"""

from .elastic import build_arch, build_block, build_supernet, extract, set_active
from .forward import forward_subnet
from .scoring import SubnetScore, recalibrate_bn, score_subnets

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
]
