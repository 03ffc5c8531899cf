"""Fronts of groups that do not fit in memory: SQL strikes out what is surely dominated, the rule decides on the rest.

`contenders` gives the rows of a group that a mark depends on. A row is struck out where one and the same row of the
group dominates it by more than a tie, and at its worst dominates it at its best. Both relations are transitive, so for
what is left the rule of `pareto.py` says what it would say beside the rows that were struck out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Select,
    String,
    and_,
    false,
    literal,
    not_,
    or_,
    select,
    union_all,
)
from sqlalchemy.types import TypeEngine

from tutelage.dominance import undominated
from tutelage.leaderboard import pareto
from tutelage.leaderboard.clauses import compare
from tutelage.leaderboard.columns import COLUMNS, Direction, with_interval
from tutelage.leaderboard.details import expression
from tutelage.leaderboard.pareto import Flags, Floats
from tutelage.leaderboard.ties import resolutions, span, tolerances

from . import schema

# Rows of a sample that the strongest rows are sought among, and how many of these SQL compares each row with.
SAMPLE, _MOST_POINTS = 2_000, 12
# Rows that one statement asks about: SQLite unites at most 500.
_MOST_UNITED = 250
# What a threshold is moved by, so that SQL never strikes out what the rule, rounding differently, would keep.
_SLACK = 1e-9


def figures_of(objectives: Sequence[str] | Mapping[str, Direction]) -> tuple[str, ...]:
    """Name what a store is read for to mark rows by these objectives."""
    ways = pareto.directions(objectives)
    bounds = [f"{name}{end}" for name in with_interval(ways) for end in ("_lo", "_hi")]
    return tuple(dict.fromkeys((*ways, *bounds)))


def places_of(objectives: Sequence[str]) -> list[int]:
    """Give the columns of number and these objectives in what `schema.FRONT` is read into."""
    return [0, *(1 + schema.FRONT.index(name) for name in objectives)]


def default_front(figures: Floats) -> list[int]:
    """Give the numbers of the rows on the default front of a group, of number and `schema.FRONT` `(rows, 5)`."""
    known: Flags = ~np.logical_and.reduce(np.isnan(figures), axis=0)
    objectives = pareto.default_objectives([name for place, name in enumerate(schema.FRONT, 1) if known[place]])
    return _front(figures[:, places_of(objectives)], objectives, resolutions(), tolerances()) if objectives else []


def exact_front(rows: Floats | Sequence[Any], objectives: Sequence[str]) -> list[int]:
    """Give the numbers of the rows on the front of these objectives, no ties allowed for, of number and objectives."""
    if not isinstance(rows, np.ndarray):
        rows = np.array([tuple(row) for row in rows], dtype=np.float64).reshape(-1, 1 + len(objectives))
    return _front(rows, objectives, {}, {})


def _front(
    figures: Floats, objectives: Sequence[str], epsilon: Mapping[str, float], tolerance: Mapping[str, float]
) -> list[int]:
    ways = pareto.directions(objectives)
    costs = figures[:, 1:] * np.array([1.0 if way == "min" else -1.0 for way in ways.values()])
    on_front = undominated(costs, pareto.bars_of(costs, ways, epsilon, tolerance))
    return [int(number) for number in figures[on_front, 0]]


def all_known(objectives: Sequence[str] | Mapping[str, Direction]) -> ColumnElement[bool]:
    """Select the rows that have all figures of a front: no other is on it, and none is dominated by another."""
    return and_(*(_of(name).is_not(None) for name in pareto.directions(objectives)))


def on_front_among(
    pages: Mapping[str, Mapping[str, Sequence[Any]]], objectives: Sequence[str], others: Select[Any]
) -> Iterator[Select[Any]]:
    """Select the numbers of those rows of some groups that no row of their group dominates by more than a tie.

    pages: the rows, by the hash of their group. others: selects what may dominate. A row that lacks a figure is none
    of them. As many rows are asked for in one statement as SQLite unites.
    """
    ways = pareto.directions(objectives)
    asked = []
    for key, page in pages.items():
        costs = pareto.costs_of({**page, "dataset": page["number"]}, ways)
        bars = pareto.bars_of(costs, ways, resolutions(ways), tolerances())
        signs = np.array([1.0 if way == "min" else -1.0 for way in ways.values()])
        for number, same, past in zip(page["number"], (costs * signs).tolist(), (bars * signs).tolist(), strict=True):
            if not np.isnan(same).any():
                asked.append((number, key, *same, *past))
    kinds: tuple[TypeEngine[Any], ...] = (BigInteger(), String(32), *[Double()] * (2 * len(ways)))
    names = ("row_number", "of_group", *(f"{end}_{name}" for end in ("same", "past") for name in ways))
    for start in range(0, len(asked), _MOST_UNITED):
        each = [
            select(*(literal(one, kind).label(name) for one, kind, name in zip(values, kinds, names, strict=True)))
            for values in asked[start : start + _MOST_UNITED]
        ]
        page_rows = (union_all(*each) if len(each) > 1 else each[0]).cte("page_rows").c
        no_worse, better = [], []
        for name, way in ways.items():
            # Not by `compare`: an index may find what is better, which few rows are.
            column, same_as, beyond = _of(name), page_rows[f"same_{name}"], page_rows[f"past_{name}"]
            no_worse.append(column <= same_as if way == "min" else column >= same_as)
            better.append(column < beyond if way == "min" else column > beyond)
        dominating = others.where(schema.rows.c.comparable == page_rows.of_group, *no_worse, or_(*better))
        yield select(page_rows.row_number).where(~dominating.correlate_except(schema.rows).exists())


def not_struck_out(
    sample: Mapping[str, Sequence[Any]],
    objectives: Sequence[str] | Mapping[str, Direction],
    *,
    ties: str = "",
    by_intervals: bool = True,
) -> ColumnElement[bool]:
    """Select the rows that no strong row of a sample of their group strikes out.

    by_intervals: also at its best by the strong row at its worst, for marks that say how sure a front is.
    """
    ways = pareto.directions(objectives)
    epsilon, tolerance = pareto.ties_of(ties, ways)
    costs = pareto.costs_of(sample, ways)
    best, worst = pareto.spans_of(sample, ways) if by_intervals else (costs, costs)
    bars = pareto.bars_of(costs, ways, epsilon, tolerance)
    strikes = _strikes(costs, bars, best, worst, by_intervals)
    conditions = []
    for place in _strongest(strikes):
        tie = _by_a_tie(sample, place, ways, epsilon, tolerance)
        sure = _by_intervals(worst[place], ways) if by_intervals else None
        conditions.append(tie if sure is None else and_(tie, sure))
    return not_(or_(false(), *conditions)) if conditions else not_(false())


def _strikes(costs: Floats, bars: Floats, best: Floats, worst: Floats, by_intervals: bool) -> Flags:
    """Say which rows of a sample strike out which others `(by, row)`."""
    front = np.flatnonzero(undominated(costs, costs))
    found = np.zeros((len(costs), len(costs)), dtype=np.bool_)
    for place in front:
        beaten = (costs[place] <= costs).all(axis=1) & (costs[place] < bars).any(axis=1)
        if by_intervals:
            beaten &= (worst[place] <= best).all(axis=1) & (worst[place] < best).any(axis=1)
        found[place] = beaten
    return found


def _strongest(strikes: Flags) -> list[int]:
    """Choose the rows that together strike out most of a sample, one after the other."""
    chosen: list[int] = []
    left: NDArray[np.bool_] = np.ones(strikes.shape[1], dtype=np.bool_)
    while len(chosen) < _MOST_POINTS and left.size:
        counts = (strikes & left).sum(axis=1)
        place = int(counts.argmax())
        if not counts[place]:
            break
        chosen.append(place)
        left &= ~strikes[place]
    return chosen


def _by_a_tie(
    sample: Mapping[str, Sequence[Any]],
    place: int,
    ways: Mapping[str, Direction],
    epsilon: Mapping[str, float],
    tolerance: Mapping[str, float],
) -> ColumnElement[bool]:
    """Select the rows that are no better than a row of the sample on all, and worse by more than a tie on one."""
    no_better, worse = [], []
    for name, way in ways.items():
        value = float(sample[name][place])
        bar = _passed(value, way, epsilon.get(name, 0.0), tolerance.get(name, 0.0))
        no_better.append(_compared(name, ">=" if way == "min" else "<=", value))
        worse.append(_compared(name, ">" if way == "min" else "<", bar))
    return and_(*no_better, or_(*worse))


def _passed(value: float, way: Direction, epsilon: float, tolerance: float) -> float:
    """Give what a figure must be worse than to be worse than `value` by more than a tie (`ties.bar` turned round)."""
    if way == "max":
        return _moved((value - epsilon) / (1 + tolerance), -1) if epsilon or tolerance else value
    return _moved((value + epsilon) * (1 + tolerance), 1) if epsilon or tolerance else value


def _by_intervals(worst: Floats, ways: Mapping[str, Direction]) -> ColumnElement[bool]:
    """Select the rows that at their best are no better than these costs on all, and worse on one."""
    bounded = set(with_interval(ways))
    no_better, worse = [], []
    for (name, way), cost in zip(ways.items(), worst.tolist(), strict=True):
        value = cost if way == "min" else -cost
        sign, end = (">", "_lo") if way == "min" else ("<", "_hi")
        low, high = (float(one[0]) for one in span(name, np.array([1.0])))
        if name not in bounded and low == high:
            no_better.append(_compared(name, f"{sign}=", value))
            worse.append(_compared(name, sign, value))
            continue
        # What is beyond the threshold is beyond it at its best, too; a bound of its interval may be nearer.
        beyond = _compared(name, sign, _threshold(name, value, way))
        if name in bounded:
            bound = _of(f"{name}{end}")
            beyond = and_(beyond, or_(bound.is_(None), _compared(f"{name}{end}", sign, _moved(value, _away(way)))))
        no_better.append(beyond)
        worse.append(beyond)
    return and_(*no_better, or_(*worse))


def _threshold(name: str, value: float, way: Direction) -> float:
    """Give the figure that is `value` at its best, where it has no interval (`ties.span` turned round)."""
    one = COLUMNS.get(name)
    half = one.resolution / 2 if one is not None and one.resolution else 0.0
    factor = (1 + (one.tolerance if one is not None else 0.0)) ** 0.5
    if half:
        return _moved(value - half if way == "max" else value + half, _away(way))
    return _moved(value / factor if way == "max" else value * factor, _away(way))


def _away(way: Direction) -> int:
    return 1 if way == "min" else -1


def _moved(value: float, sign: int) -> float:
    return value + sign * (_SLACK * abs(value) + 1e-12 * _SLACK) if np.isfinite(value) else value


def _of(name: str) -> ColumnElement[Any]:
    return expression(schema.rows, COLUMNS[name])


def _compared(name: str, sign: str, value: float) -> ColumnElement[bool]:
    """Compare a figure with a threshold, as a filter does."""
    found = _of(name)
    if not np.isfinite(value):
        operators = {">": found > literal(value, Double()), ">=": found >= literal(value, Double())}
        operators |= {"<": found < literal(value, Double()), "<=": found <= literal(value, Double())}
        return operators[sign]
    return compare(found, sign, value)
