"""The stable import path of the spaces and of the published subnets."""

from .spaces.presets import PRESETS, place
from .spaces.space import SPACES, Gene, Genes, Slot, Space, divisible, find_space

__all__ = ["PRESETS", "SPACES", "Gene", "Genes", "Slot", "Space", "divisible", "find_space", "place"]
