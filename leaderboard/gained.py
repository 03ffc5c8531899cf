"""A teacher's gain in words: one of the four verdicts, from the `gain_...` columns of a row (`gain_words`).

The margin of equivalence is the row's own, its recipe's; `DEFAULT_MARGIN` where the row does not say. A row without a
p value had too few seeds for a claim about its teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.records import DEFAULT_MARGIN, verdict_of

_FIGURES = ("gain_auc", "gain_accuracy")  # the first that is known speaks for the row
GAIN_COLUMNS = (*(f"{name}{end}" for name in _FIGURES for end in ("", "_lo", "_hi", "_p")), "gain_margin")


def gain_verdict(values: Sequence[Any]) -> str:
    """Give "gained", "lost", "equivalent" or "inconclusive" for the values of GAIN_COLUMNS; empty where none is there.

    Values may be None, NaN or pandas' NA.
    """
    known = _known(values)
    margin = values[-1]
    return "" if known is None else verdict_of(*known, DEFAULT_MARGIN if is_absent(margin) else float(margin))


def gain_words(values: Sequence[Any]) -> str:
    """Write the verdict with its difference: `gained +0.012 (p 0.008)`, `inconclusive (+0.098, p 0.14)`."""
    known = _known(values)
    if known is None:
        return ""
    difference, _, _, p = known
    verdict = gain_verdict(values)
    words = "" if p is None else "p < 0.001" if p < 0.001 else f"p {p:.2g}"
    if verdict in ("gained", "lost"):
        return f"{verdict} {difference:+.3f} ({words})"
    inside = [f"{difference:+.3f}"] + ([words] if words and verdict == "inconclusive" else [])
    return f"{verdict} ({', '.join(inside)})"


def is_absent(value: Any) -> bool:
    """Recognize None, NaN and pandas' NA, without pandas: a terminal's table does not wait for its import."""
    return value is None or type(value).__name__ == "NAType" or value != value


def _known(values: Sequence[Any]) -> tuple[float, float | None, float | None, float | None] | None:
    """Give difference, low, high and p of AUC, or of accuracy where the AUC is absent; None where both are."""
    figures = [None if is_absent(value) else float(value) for value in values]
    for difference, low, high, p in (figures[:4], figures[4:8]):
        if difference is not None:
            return difference, low, high, p
    return None
