"""Networks by name, as teachers, students and baselines, and their weights files: `build_teacher`."""

from .zoo import build_teacher

__all__ = ["build_teacher"]
