"""The registry of spaces: one file a family, and what other packages add under `tutelage.spaces`."""

from __future__ import annotations

from tutelage.plugins import Registry

from . import mbv3, proxyless, resnet50
from .definition import Gene, Genes, Slot, Space
from .family import Family, Stage, divisible

__all__ = ["SPACES", "Family", "Gene", "Genes", "Slot", "Space", "Stage", "divisible", "find_space"]

SPACES: Registry[Space] = Registry("spaces", "space", Space, (*mbv3.SPACES, *proxyless.SPACES, *resnet50.SPACES))


def find_space(name: str) -> Space:
    """Look a space up by name; raises InputError with the nearest name."""
    return SPACES.find(name)
