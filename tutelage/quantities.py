"""Quantities with units, as people write them: `5ms`, `100M`, `8MB`, `35%`.

Enters: text. Leaves: a number, or an InputError that shows how to write it.
"""

from __future__ import annotations

import re

from .records import InputError

_NUMBER = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Zµ%]*)\s*$")
_MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}
# File sizes are decimal, as disks and app stores count them; the binary units say so by their i.
_BYTES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}


def milliseconds(value: str | float) -> float:
    """Read a latency: `5ms`, `800us`, `1.5s`. A bare number has no unit and is refused."""
    return _read(value, _MILLISECONDS, "a latency", "5ms, 800us or 1.5s")


def number(value: str | float) -> float:
    """Read a count: `5000000`, `5M`, `1.2G`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _positive(float(value), str(value), "a count", "100M")
    return _read(value, _COUNTS, "a count", "100M, 5.5k or 2500000")


def size_in_bytes(value: str | float) -> float:
    """Read a size: `8MB`, `500kB`, `2MiB`."""
    return _read(value, _BYTES, "a size", "8MB, 500kB or 2MiB")


def share(value: str | float) -> float:
    """Read a percentage: `35%` is .35."""
    return _read(value, {"%": 0.01}, "a share", "35%")


def in_units(value: float, unit: str) -> str:
    """Write a number for people: `12.3 M`, `4.56 MB`, `0.789 ms`; `unit` is `""`, `B` or `ms`."""
    if unit == "ms":
        return f"{value:.3g} ms"
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def _read(value: str | float, units: dict[str, float], what: str, examples: str) -> float:
    found = _NUMBER.match(str(value))
    if found is None or found.group(2) not in units:
        raise InputError(f"{value!r} is not {what}: write a number with a unit, e.g. {examples}")
    return _positive(float(found.group(1)) * units[found.group(2)], str(value), what, examples)


def _positive(amount: float, text: str, what: str, examples: str) -> float:
    if not 0 < amount < float("inf"):
        raise InputError(f"{text!r} is not {what}: it must be above zero, e.g. {examples}")
    return amount
