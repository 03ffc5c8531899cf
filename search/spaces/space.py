"""The registry of spaces: what the files of this package declare, and what others add under `tutelage.spaces`."""

from __future__ import annotations

from tutelage.plugins import Registry, modules_of

from .definition import Gene, Genes, Slot, Space
from .family import Family, Stage, divisible

__all__ = ["SPACES", "Family", "Gene", "Genes", "Slot", "Space", "Stage", "divisible", "find_space"]

SPACES: Registry[Space] = Registry("spaces", "space", Space, modules_of("tutelage.search.spaces", Space))


def find_space(name: str) -> Space:
    """Look a space up by name; raises InputError with the nearest name."""
    return SPACES.find(name)
