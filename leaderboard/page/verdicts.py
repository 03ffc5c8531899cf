"""What is decided for a page before it is drawn: the best students, and what paired tests say of two rows.

`decide` takes rows and the tests; the page shows its verdicts and computes none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.leaderboard import pareto
from tutelage.leaderboard.best import Ballot, PairTest, advice, ballots, best_students, best_teacher
from tutelage.records import DATA_KEY, Comparison, Row

if TYPE_CHECKING:
    import pandas as pd

Decide = Callable[[Sequence[Row]], "Verdicts"]

# Files of one data set that are tested against each other: 60 give 1,770 pairs, a quarter of a megabyte of page.
MOST_TESTED = 60
# Rows that a best student is chosen of: their details are read, those on fronts first, then by quality.
MOST_DECIDED = 2_000


@dataclass(frozen=True)
class Headline:
    """The best student of one data set and device, and the best teacher there ("" where there is none), by row id.

    warning: that the student is no better than guessing, with the remedy; "" where it is better.
    """

    student: str
    teacher: str = ""
    warning: str = ""


@dataclass(frozen=True)
class Verdicts:
    """`files` names the tested file of a row, by row id; `pairs` holds the tests of two files, first less second.

    `ballots` hold the candidates for a best student, of which the page chooses again within a reader's budget.
    """

    headlines: tuple[Headline, ...] = ()
    ballots: tuple[Ballot, ...] = ()
    files: Mapping[str, int] = field(default_factory=dict)
    pairs: Mapping[tuple[int, int], tuple[Comparison, ...]] = field(default_factory=dict)


def decide(rows: Sequence[Row], on_validation: PairTest | None = None, on_test: PairTest | None = None) -> Verdicts:
    """Choose the best student of each data set and device, and test every two files of the same test images.

    Of more than MOST_TESTED files of a data set those are tested that a reader compares first: the headlines', those on
    a front, then the best of the others. p values are of one pair each, as `leaderboard compare` gives them.
    """
    headlines = _headlines(rows, on_validation)
    candidates = tuple(ballots(rows, on_validation, most_tested=MOST_TESTED))
    if on_test is None:
        return Verdicts(headlines, candidates)
    wanted = {row_id for one in headlines for row_id in (one.student, one.teacher)}
    order = _by_interest(rows, wanted)
    grounds: dict[tuple[Any, ...], dict[str, list[Row]]] = {}
    for row in order:
        if row.details.get("predictions") and row.manifest:
            ground = grounds.setdefault(tuple(getattr(row, name) for name in DATA_KEY), {})
            ground.setdefault(_file_of(row), []).append(row)
    files: dict[str, int] = {}
    pairs: dict[tuple[int, int], tuple[Comparison, ...]] = {}
    for ground in grounds.values():
        tested = list(ground.values())[:MOST_TESTED]
        start = 1 + max(files.values(), default=-1)
        for number, same in enumerate(tested, start):
            files |= {row.key: number for row in same}
        for (first, a), (second, b) in combinations(enumerate(tested, start), 2):
            if found := tuple(on_test(a[0], b[0])):
                pairs[first, second] = found
    return Verdicts(headlines, candidates, files, pairs)


def decided_ids(found: pd.DataFrame) -> list[str]:
    """Name the rows of a store's frame that `decide` should see: all, or MOST_DECIDED of them."""
    if len(found) <= MOST_DECIDED:
        return list(found["row_id"])
    quality = found["auc"].fillna(found["accuracy"]).to_numpy(dtype=np.float64, na_value=-np.inf)
    order = np.lexsort((-quality, ~np.array(pareto.on_front(found)), (found["source"] != "measured").to_numpy()))
    return list(found["row_id"].iloc[order[:MOST_DECIDED]])


def _headlines(rows: Sequence[Row], on_validation: PairTest | None) -> tuple[Headline, ...]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in pareto.GROUP), []).append(row)
    found = []
    for group in groups.values():
        for student in best_students(group, on_validation)[:1]:
            teacher = best_teacher(group)
            found.append(Headline(student.key, teacher.key if teacher else "", advice(student)))
    return tuple(found)


def _by_interest(rows: Sequence[Row], wanted: set[str]) -> list[Row]:
    flags = pareto.on_front(rows)

    def interest(place: int) -> tuple[bool, bool, float]:
        row = rows[place]
        quality = row.auc if row.auc is not None else row.accuracy
        return row.key not in wanted, not flags[place], -(quality or 0.0)

    return [rows[place] for place in sorted(range(len(rows)), key=interest)]


def _file_of(row: Row) -> str:
    """Name what was evaluated: rows of several devices that share a file share its predictions."""
    seeds = row.details.get("seeds")
    files = seeds.get("files") if isinstance(seeds, dict) else None
    return json.dumps([row.details["predictions"], row.details.get("threshold"), files], default=str)
