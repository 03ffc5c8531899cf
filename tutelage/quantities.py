"""Quantities with units, as people write them: `5ms`, `100M`, `8MB`, `35%`; the one reader of options and of filters.

An option is above zero and names its unit (`milliseconds`, `number`, `size_in_bytes`, `fraction_of`). A filter compares
any number with a column: `amount` takes one without a unit in the column's own. Figures are written with no more digits
than their intervals carry (`written_fraction`, `three_digits`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from .inputs import InputError

_NUMBER = re.compile(r"[ \t]*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]{1,5}))?[ \t]*([a-zA-Zµ%]*)[ \t]*")

# Uncertainties from .355 of a decade up are given with one digit, those below with two (Particle Data Group, Review of
# Particle Physics, section 5.3).
_TWO_DIGITS_BELOW = 3.55
# A fraction has three decimals where no interval is known; a narrow interval earns a fourth, and two always stay.
_FRACTION_DECIMALS, _LEAST, _MOST = 3, 2, 4


@dataclass(frozen=True)
class Kind:
    """A kind of quantity: what it is called, its units as factors of the first, and examples."""

    what: str
    units: dict[str, float]
    examples: str


LATENCY = Kind("a latency", {"ms": 1.0, "us": 1e-3, "µs": 1e-3, "s": 1e3}, "5ms, 800us or 1.5s")
COUNT = Kind("a count", {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}, "100M, 5.5k or 2500000")
# File sizes are decimal, as disks and app stores count them; the binary units say so by their i.
SIZE = Kind(
    "a size",
    {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
    "8MB, 500kB or 2MiB",
)
SHARE = Kind("a percentage", {"%": 0.01}, "35%")
FRACTION = Kind("a fraction", {"": 1.0, "%": 0.01}, "0.95 or 95%")
ENERGY = Kind("an energy", {"mJ": 1.0, "uJ": 1e-3, "µJ": 1e-3, "J": 1e3}, "3mJ")
PLAIN = Kind("a number", {"": 1.0}, "4")
PIXELS = Kind("a number of pixels", {"": 1.0, "px": 1.0}, "64 or 64px")
# Units that a filter accepts for a kind of column, by the name that the page uses.
KINDS = {
    **{"latency": LATENCY, "count": COUNT, "size": SIZE, "fraction": FRACTION, "energy": ENERGY},
    **{"pixels": PIXELS, "plain": PLAIN},
}


def amount(text: str, kind: Kind) -> float:
    """Read a number of any sign for a column of this kind; one without a unit is in the column's own unit."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise InputError(f"{text!r} is not {kind.what}: write e.g. {kind.examples}")
    unit = found.group(3)
    if unit and unit not in kind.units:
        units = " ".join(filter(None, kind.units)) or "none"
        raise InputError(f"{text!r} is not {kind.what} (units: {units}): write e.g. {kind.examples}")
    return _times(found, kind.units[unit] if unit else 1.0)


def milliseconds(value: str | float) -> float:
    """Read a latency: `5ms`, `800us`, `1.5s`. A bare number has no unit and is refused."""
    return _read(value, LATENCY)


def number(value: str | float) -> float:
    """Read a count: `5000000`, `5M`, `1.2G`."""
    return _read(value, COUNT)


def size_in_bytes(value: str | float) -> float:
    """Read a size: `8MB`, `500kB`, `2MiB`."""
    return _read(value, SIZE)


def millijoules(value: str | float) -> float:
    """Read an energy: `3mJ`, `500uJ`."""
    return _read(value, ENERGY)


def fraction_of(value: str | float) -> float:
    """Read a percentage: `35%` is .35."""
    return _read(value, SHARE)


def latency_budget(text: str) -> tuple[float, bool]:
    """Read a latency budget: milliseconds and False, or (`35%`) a fraction and True."""
    if text.strip().endswith("%"):
        if (fraction := fraction_of(text)) > 1:
            raise InputError(f"{text!r} is beyond the largest network, which has 100%: such a budget bounds nothing")
        return fraction, True
    return milliseconds(text), False


def latency_budgets(text: str) -> tuple[tuple[float, bool], ...]:
    """Read a latency budget or several, `1ms,2ms,4ms`, ascending; of times beside percentages the device decides."""
    read = tuple(latency_budget(part) for part in text.split(","))
    if len({relative for _, relative in read}) == 1 and list(read) != sorted(set(read)):
        raise InputError(f"{text!r}: give the budgets in ascending order, each once")
    return read


def no_formula(text: str) -> str:
    """Write a text for Matplotlib, to which `$` would start a formula."""
    return text.replace("$", r"\$")


def in_units(value: float, unit: str) -> str:
    """Write a number for people: `12.3 M`, `4.56 MB`, `0.789 ms`; `unit` is `""`, `B` or `ms`."""
    if unit == "ms":
        return f"{value:.3g} ms"
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def _read(value: str | float, kind: Kind) -> float:
    found = _NUMBER.fullmatch(str(value))
    if found is None or found.group(3) not in kind.units:
        raise InputError(f"{str(value)!r} is not {kind.what}: write a number with a unit, e.g. {kind.examples}")
    read = _times(found, kind.units[found.group(3)])
    if not 0 < read < float("inf"):
        fault = "it is too large" if read > 0 else "it must be above zero"
        raise InputError(f"{str(value)!r} is not {kind.what}: {fault}, e.g. {kind.examples}")
    return read


def _times(found: re.Match[str], factor: float) -> float:
    """Multiply what was matched; by a power of ten exactly, so that 95% is .95 and 1.1M is 1100000."""
    power = round(math.log10(factor))
    if float(f"1e{power}") == factor:
        return float(f"{found.group(1)}e{int(found.group(2) or 0) + power}")
    return float(f"{found.group(1)}e{found.group(2) or 0}") * factor


def decimals_of(low: float | None, high: float | None) -> int | None:
    """Give the decimals that an interval carries, negative for tens and hundreds; None without an interval."""
    if low is None or high is None or not low < high:
        return None
    half = (high - low) / 2
    size = math.floor(math.log10(half))
    return (1 if half / 10**size < _TWO_DIGITS_BELOW else 0) - size


def written_fraction(value: float, low: float | None = None, high: float | None = None) -> str:
    """Write a quality: three decimals, or two to four by its interval."""
    carried = decimals_of(low, high)
    decimals = _FRACTION_DECIMALS if carried is None else min(_MOST, max(_LEAST, carried))
    return f"{value:.{decimals}f}"


def three_digits(value: float, low: float | None = None, high: float | None = None) -> str:
    """Write at most three significant digits without an exponent: 0.0231, 4.57, 23.1, 1,230; fewer by its interval."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    decimals = 2 - math.floor(math.log10(abs(rounded)))
    carried = decimals_of(low, high)
    if carried is not None and carried < decimals and round(value, carried) != 0:
        decimals, rounded = carried, round(value, carried)
    return f"{rounded:,.{max(0, min(11, decimals))}f}"
