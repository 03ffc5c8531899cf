"""Which student of a run is the best: validation data choose, the test split has no say.

Enters: rows. Leaves: one of them. The page chooses by the same rule (`champions` in page_front.js).
"""

from __future__ import annotations

from collections.abc import Iterable

from tutelage.records import Row


def best_student(rows: Iterable[Row]) -> Row | None:
    """Give the measured student of the highest validation AUC, or None where there is no student.

    AUC (accuracy where there is none) counts to three digits: some hundred images tell no finer. Of equals the one of
    fewest parameters wins, at int8 before float, then the exact figure; never the measured time, which among twins of
    one architecture is noise.
    """
    students = [row for row in rows if row.role == "student" and row.source == "measured"]
    return max(students, key=_merit, default=None)


def _merit(row: Row) -> tuple[float, float, bool, float]:
    figures = row.details.get("validation", {})
    quality = float(figures.get("auc") or figures.get("accuracy") or 0.0)
    return round(quality, 3), -(row.params or float("inf")), row.scheme.startswith("int8"), quality
