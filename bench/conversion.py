"""Deprecated import path of `tutelage.bench.runtimes.conversion`, kept for scripts that use it."""

from .runtimes.conversion import BESIDE, Conversion, Done, parts, size_bytes

__all__ = ["BESIDE", "Conversion", "Done", "parts", "size_bytes"]
