"""Scale pixels of more than 8 bits to bytes by one range for the whole data set, never by a picture's own maximum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InputError

Range = tuple[float, float]

RANGE_HELP = (
    "[low, high]: the values that become black and white in pictures of more than 8 bits, in DICOM after the rescale "
    "(HU of a CT); default: all values of 8 and 16-bit integers, 0 to 1 of floats"
)

_BYTES = 255.0

# Integers of more bits and floats have no range of their own; files of 16 bits in wider words and floats of 0 to 1 are
# what writers mean by them.
_WIDE_INTEGERS: Range = (0.0, 65535.0)
_FLOATS: Range = (0.0, 1.0)


def stated_range(value: Any) -> Range | None:
    """Check the option `range`; None where it is not given."""
    if value is None:
        return None
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        numbers = [one for one in value if isinstance(one, int | float) and not isinstance(one, bool)]
        if len(numbers) == 2 and np.isfinite(numbers).all() and numbers[0] < numbers[1]:
            return float(numbers[0]), float(numbers[1])
    raise InputError(f"range {value!r} is not [low, high] with low below high, e.g. [0, 4095]")


def range_of(values: NDArray[Any], stated: Range | None = None) -> Range:
    """Give the range by which values become bytes: the stated one, or that of their type.

    Raises InputError for NaN, and for wide integers and floats beyond what their type is taken to mean.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError("holds pixels that are NaN or infinite")
    if stated is not None:
        return stated
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        limits = np.iinfo(values.dtype)
        return float(limits.min), float(limits.max)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    usual = _FLOATS if values.dtype.kind == "f" else _WIDE_INTEGERS
    if low < usual[0] or high > usual[1]:
        raise InputError(
            f"holds {values.dtype} pixels from {low:g} to {high:g}: state what is black and what is white in the whole "
            "data set, data.options.range: [low, high]"
        )
    return usual


def to_bytes(values: NDArray[Any], limits: Range) -> NDArray[np.uint8]:
    """Scale values linearly so that `limits` become 0 and 255; what lies beyond is clipped."""
    low, high = limits
    scaled = (np.asarray(values, dtype=np.float64) - low) * (_BYTES / (high - low))
    return np.rint(np.clip(scaled, 0.0, _BYTES)).astype(np.uint8)


def unused_range(low: float, high: float, limits: Range) -> str | None:
    """Say that a data set uses less than a quarter of the range it is scaled by, and which range would fit."""
    if high - low >= (limits[1] - limits[0]) / 4 or high == low:
        return None
    bits = next((bits for bits in (8, 10, 12, 14) if low >= 0 and high < 2**bits and limits[1] > 1), None)
    wanted = f"[0, {2**bits - 1}]" if bits else f"[{low:g}, {high:g}]"
    return (
        f"pixels of more than 8 bits hold {low:g} to {high:g} and are scaled by {limits[0]:g} to {limits[1]:g}, so "
        f"pictures have little contrast: state the range of the data set, e.g. data.options.range: {wanted}"
    )
