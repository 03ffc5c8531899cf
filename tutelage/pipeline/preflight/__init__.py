"""Refuse a recipe that cannot end before its first stage, with all of its faults in one go."""

from .checks import Goal, open_checked, read_recipe
from .faults import Faults

__all__ = ["Faults", "Goal", "open_checked", "read_recipe"]
