"""Which pretrained weights a first recipe can start from: those on this disk, else what the network gives."""

from __future__ import annotations

from functools import cache

from tutelage.hub import endpoint, offline
from tutelage.pipeline.weights.download import silent_host
from tutelage.pipeline.weights.entry import Wanted
from tutelage.pipeline.weights.given import find_weights, wanted_for_space
from tutelage.records import InputError

# CNNs that are better than a small student on most sets, in the order of preference where their weights are here.
TEACHERS = ("densenet121", "resnet50", "resnet34", "resnet18")
DOWNLOADED = "resnet18"  # 47 MB, and quick to train on a CPU
SCRATCH = "resnet10t"
BASELINE = "mobilenetv3_small_100"
MIN_SIDE = 64  # pixels: of smaller images the features of ImageNet's 224 px are of little use


def has_network_weights(name: str, channels: int, *, here: bool = False) -> bool:
    """Say whether ImageNet's weights of a network of timm can be had; `here`: without a download."""
    return _can_be_had(Wanted(name, channels, name), here=here)


def has_supernet_weights(space: str, channels: int) -> bool:
    """Say whether the published weights of a space's supernet can be had."""
    return _can_be_had(wanted_for_space(space, channels))


def choose_teacher(channels: int) -> str:
    """Name a CNN whose ImageNet weights can be had, one on this disk first; empty where none can."""
    here = (name for name in TEACHERS if has_network_weights(name, channels, here=True))
    return next(here, DOWNLOADED if has_network_weights(DOWNLOADED, channels) else "")


def _can_be_had(wanted: Wanted, *, here: bool = False) -> bool:
    try:
        location = find_weights("imagenet", wanted).location
    except InputError:  # nothing is published for it
        return False
    return location.held() is not None or (not here and _has_network() and not location.missing())


@cache
def _has_network() -> bool:
    """Say whether downloads are allowed and the hub answers: asked once, since a silent network costs seconds."""
    return not offline() and not silent_host(endpoint())
