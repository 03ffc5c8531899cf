"""What students gain over the baselines that one would deploy otherwise: for each data set, device and precision.

A baseline is dominated where a student whose median latency is no higher is better on the test images: the paired 95 %
interval of the difference lies above 0. The fronts are compared by hypervolume (Zitzler and Thiele 1999).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tutelage.dominance import hypervolume
from tutelage.leaderboard.best import PairTest
from tutelage.leaderboard.names import data_names, device_names
from tutelage.leaderboard.pareto import QUALITY
from tutelage.records import DATA_KEY, DEVICE_KEY, STATES, Comparison, Row

# dominated: a student that is no slower is surely better; as good: no significant difference in quality; no: every
# student that is no slower is surely worse, or there is none.
Outcome = Literal["dominated", "as good", "no"]


@dataclass(frozen=True)
class Against:
    """A baseline beside the student that speaks for or against it; None where no student is as fast.

    `test` is the student's quality less the baseline's; None where predictions are missing and intervals decided.
    """

    baseline: Row
    student: Row | None
    outcome: Outcome
    test: Comparison | None = None


@dataclass(frozen=True)
class Ground:
    """All baselines of one data set, device and precision.

    Hypervolumes are of the fronts in (median latency, 1 - quality), as fractions of the box between 0 and the worst
    figures of both sets, which are the reference point; None without a latency.
    """

    data: str
    device: str
    precision: str
    figure: str  # auc or accuracy
    against: tuple[Against, ...]
    students_volume: float | None
    baselines_volume: float | None

    @property
    def ratio(self) -> float | None:
        """Give the students' hypervolume over the baselines'."""
        return self.students_volume / self.baselines_volume if self.students_volume and self.baselines_volume else None


def against_baselines(rows: Iterable[Row], test: PairTest | None = None) -> list[Ground]:
    """Compare the measured students of each ground with its baselines; rows of seeds are means already.

    `test(first, second)` gives the paired comparisons of two rows on the test images, or none. Of a run that goes on
    again the earlier rows count until the new ones are as far.
    """
    measured = [row for row in _furthest(rows) if row.source == "measured" and row.latency_p50_ms is not None]
    keys = {name: [getattr(row, name) for row in measured] for name in (*DATA_KEY, *DEVICE_KEY)}
    grounds: dict[tuple[str, str, str], list[Row]] = {}
    for row, data, device in zip(measured, data_names(keys), device_names(keys), strict=True):
        grounds.setdefault((data, device, row.scheme.partition("-")[0]), []).append(row)
    found = []
    for (data, device, precision), members in grounds.items():
        baselines = [row for row in members if row.role == "baseline"]
        students = [row for row in members if row.role == "student"]
        figure = _figure(members)
        if figure is None or not baselines or not students:
            continue
        pairs = sorted((_decide(row, students, figure, test) for row in baselines), key=lambda one: _p50(one.baseline))
        worst = (max(map(_p50, members)), max(1 - getattr(row, figure) for row in members))
        volumes = [_hypervolume(rows, figure, worst) for rows in (students, baselines)]
        found.append(Ground(data, device, precision, figure, tuple(pairs), volumes[0], volumes[1]))
    return found


def _furthest(rows: Iterable[Row]) -> list[Row]:
    """Keep one row of each result: of an earlier run and one that goes on, the row that is further."""
    kept: dict[str | int, Row] = {}
    for number, row in enumerate(rows):
        of = row.identity or number
        if of not in kept or _how_far(row) > _how_far(kept[of]):
            kept[of] = row
    return list(kept.values())


def _how_far(row: Row) -> int:
    state = row.details.get("state")
    return STATES.index(state) if state in STATES else len(STATES)


def _figure(rows: Sequence[Row]) -> str | None:
    """Name the quality that all rows have; accuracy, which published tables have, where both are there."""
    whole = [name for name in reversed(QUALITY) if all(getattr(row, name) is not None for row in rows)]
    return next(iter(whole), None)


def _p50(row: Row) -> float:
    return float(row.latency_p50_ms or 0.0)


def _decide(baseline: Row, students: Sequence[Row], figure: str, test: PairTest | None) -> Against:
    """Find the fastest student that dominates, else the best in quality of those that are no slower."""
    as_fast = [row for row in students if _p50(row) <= _p50(baseline)]
    found = [_outcome(row, baseline, figure, test) for row in sorted(as_fast, key=_p50)]
    by_quality = sorted(found, key=lambda one: getattr(one.student, figure), reverse=True)
    for outcome, ones in (("dominated", found), ("as good", by_quality), ("no", by_quality)):
        if chosen := next((one for one in ones if one.outcome == outcome), None):
            return chosen
    return Against(baseline, None, "no")


def _outcome(student: Row, baseline: Row, figure: str, test: PairTest | None) -> Against:
    tests = test(student, baseline) if test is not None else ()
    compared = next((one for one in tests if one.figure == figure), None)
    if compared is not None and compared.low is not None and compared.high is not None:
        low, high = compared.low, compared.high
    else:
        (least, most), (worst, best) = (_span(row, figure) for row in (student, baseline))
        low, high = least - best, most - worst
    return Against(baseline, student, "dominated" if low > 0 else "no" if high < 0 else "as good", compared)


def _span(row: Row, figure: str) -> tuple[float, float]:
    value = getattr(row, figure)
    low, high = (getattr(row, f"{figure}_{end}") for end in ("lo", "hi"))
    return value if low is None else low, value if high is None else high


def _hypervolume(rows: Sequence[Row], figure: str, worst: tuple[float, float]) -> float | None:
    """Give what rows dominate of the box, a fraction of it; None for a box without area."""
    if not (worst[0] > 0 and worst[1] > 0):
        return None
    points = np.array([(_p50(row) / worst[0], (1 - getattr(row, figure)) / worst[1]) for row in rows])
    return hypervolume(points, np.ones(2))
