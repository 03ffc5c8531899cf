"""Deprecated import path of `tutelage.bench.converters.conversion`, kept for scripts that use it."""

from tutelage.files import BESIDE

from .converters.conversion import Conversion, Done, parts, size_bytes

__all__ = ["BESIDE", "Conversion", "Done", "parts", "size_bytes"]
