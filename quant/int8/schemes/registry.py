"""The registry of int8 schemes, and the look-up of those that give ranges."""

from __future__ import annotations

from tutelage.plugins import Registry, modules_of
from tutelage.records import InputError

from .entry import Ranges, Scheme

SCHEMES = Registry("schemes", "int8 method", Scheme, modules_of("tutelage.quant.int8.schemes", Scheme))


def automatic() -> tuple[str, ...]:
    """Name the schemes that `auto` chooses from."""
    return tuple(name for name, scheme in SCHEMES.items() if scheme.automatic)


def find_ranges(name: str) -> Ranges:
    """Give the ranges of a scheme for .onnx files. Raises InputError for an unknown one, and one without ranges."""
    scheme = SCHEMES.find(name)
    if scheme.ranges is None or ".onnx" not in scheme.formats:
        raise InputError(f"int8 method {name!r} gives no ranges for .onnx files: {', '.join(automatic())} do")
    return scheme.ranges
