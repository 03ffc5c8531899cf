"""One page of the leaderboard, best rows first, with the marks of a front: what `leaderboard show` prints (`page_of`).

Only the rows of the page, and those that their marks depend on, leave the database: a million rows are counted,
filtered, sorted and compared there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, func, select

from tutelage.leaderboard import pareto
from tutelage.leaderboard.clauses import by_bytes, scanned
from tutelage.leaderboard.columns import COLUMNS, GROUP, OF_FORMER
from tutelage.leaderboard.details import expression
from tutelage.leaderboard.filters import parse
from tutelage.leaderboard.pareto import Floats

from . import fronts, schema
from .page import SHARED, Page, Request, sort_of

if TYPE_CHECKING:
    import pandas as pd

    from tutelage.leaderboard.export import Parts

    from .rows import Store

# Contenders of a group that the rule alone decides on, some megabytes.
_SMALL = 50_000
# Of so few rows of a group each is looked for what dominates it; for more the group is read.
_PROBED = 20
# So many rows of a filter are found once and looked up by their numbers from then on.
_FEW = 2_000
# A group of so many rows is read in one pass over all, where no index holds what is wanted: not row by row.
_SCANNED = 100_000


@dataclass(frozen=True)
class _Ground:
    """One group: what its rows are compared by, and of a filter how many it keeps and which figures these have."""

    key: str
    values: Mapping[str, Any]
    count: int | None = None
    known: tuple[str, ...] | None = None


def page_of(store: Store, asked: Request, names: Sequence[str]) -> Page:
    """Give the page that is asked for, with columns of these names, `row_id` and `comparable`."""
    said = OF_FORMER if asked.every else ()
    figures = (*fronts.figures_of(schema.FRONT), *(fronts.figures_of(asked.objectives) if asked.objectives else ()))
    wanted = tuple(dict.fromkeys(("row_id", "comparable", "number", *names, *figures, *said)))
    with store.reading() as connection:
        board = Board(connection, asked)
        numbers = board.page()
        found = store.by_number(numbers, wanted, every=asked.every)
        count = board.count()
        marks = _page_marks(board, found)
        shared = board.shared()
    count = store.count(every=asked.every) if count is None else count
    return Page(found, marks, count, shared, asked.offset, sort_of(asked.sort)[0].name if asked.sort else "")


def marks_of(store: Store, asked: Request) -> dict[int, str]:
    """Give the marks of the rows that have one, by number, of all groups."""
    marks: dict[int, str] = {}
    with store.reading() as connection:
        board = Board(connection, asked)
        for key in board.keys:
            figures = None if asked.objectives else board.front_figures(key)
            if figures is None:
                marks |= {number: mark for number, mark in marked(board, key, {}).items() if mark}
            else:
                marks |= dict.fromkeys(fronts.default_front(figures), "*")
    return marks


def export_parts(store: Store, filter: str | None = None, *, every: bool = False, format: str = "parquet") -> Parts:
    """Read rows for `export.write` some at a time, as often as that is called, the front of all of them marked.

    format: those that do not write the details do not read them, and some take plain columns (`export.PLAIN`).
    """
    marks = marks_of(store, Request(filter or "", every=every))
    return _marked_parts(store, marks, format, filter=filter, every=every)


def row_parts(store: Store, row_id: str, format: str = "csv") -> Parts:
    """Read the current row of a whole id for `export.pieces`, with the mark that it has among all rows."""
    keys = store.columns(names=("comparable",), ids=[row_id])["comparable"]
    with store.reading() as connection:
        board = Board(connection, Request())
        marks = marked(board, keys[0], {}) if keys else {}
    return _marked_parts(store, {number: mark for number, mark in marks.items() if mark}, format, ids=[row_id])


def _marked_parts(store: Store, marks: Mapping[int, str], format: str, **which: Any) -> Parts:
    from tutelage.leaderboard.export import PLAIN, WITH_DETAILS, frame, names_in_order, typed_frame

    left_out = ("on_front",) if format in WITH_DETAILS else ("on_front", "details")
    names = [name for name in names_in_order() if name not in left_out]
    order = [name for name in names_in_order() if name in ("on_front", *names)]

    def parts() -> Iterator[pd.DataFrame | Mapping[str, Sequence[Any]]]:
        is_empty = True
        for part in store.parts((*names, "number"), **which):
            part["on_front"], is_empty = [number in marks for number in part["number"]], False
            if format in PLAIN:
                yield {name: part[name] for name in order}
            else:
                yield frame(typed_frame({name: part[name] for name in names}).assign(on_front=part["on_front"]))
        if is_empty:
            yield frame(typed_frame({name: [] for name in names}).assign(on_front=np.zeros(0, dtype=bool)))

    return parts


def ranked_numbers(store: Store, asked: Request) -> list[int]:
    """Give the numbers of the rows that are asked for, in the order of a table."""
    with store.reading() as connection:
        return Board(connection, asked).page()


def _page_marks(board: Board, found: Mapping[str, list[Any]]) -> list[str]:
    """Mark the rows of a page: each group by the rows that its marks depend on."""
    marks = [""] * len(found["row_id"])
    former = {place for name in OF_FORMER if name in found for place, why in enumerate(found[name]) if why}
    places: dict[str, list[int]] = {}
    for place, key in enumerate(found["comparable"]):
        if place not in former:
            places.setdefault(key, []).append(place)
    pages = {key: {name: [found[name][one] for one in some] for name in found} for key, some in places.items()}
    probed = board.probed(pages)
    for key, members in places.items():
        of_group = probed[key] if key in probed else marked(board, key, pages[key])
        for place in members:
            marks[place] = of_group.get(found["number"][place], "")
    return marks


def marked(board: Board, key: str, page: Mapping[str, list[Any]]) -> dict[int, str]:
    """Mark the rows of a group that its front depends on, and those of a page, by number."""
    asked = board.asked
    objectives = asked.objectives or pareto.default_objectives(board.known(key))
    if not objectives:
        return {}
    names = ("number", *_figures(asked, objectives))
    rows: dict[str, list[Any]] = {name: list(page.get(name, ())) for name in names}
    beside = board.as_good(key, objectives, page) if page else None
    there = set(rows["number"])
    for values in board.contenders(key, objectives) if beside is None else beside:
        if values[0] not in there:
            for name, value in zip(names, values, strict=True):
                rows[name].append(value)
    rows["comparable"] = rows["dataset"] = [key] * len(rows["number"])
    if not rows["number"]:
        return {}
    marks = pareto.marks(rows, asked.objectives or None, asked.ties, {key: objectives})
    return dict(zip(rows["number"], marks, strict=True))


class Board:
    """The groups of what is asked for in the order of a table, and the numbers of the rows of a page."""

    def __init__(self, connection: Connection, asked: Request) -> None:
        self.asked = asked
        self._connection = connection
        self._shown = schema.is_last_state() if asked.every else schema.is_current()
        self._clause: ColumnElement[bool] | None = parse(asked.filter).clause(schema.rows) if asked.filter else None
        self._grounds = {one.key: one for one in sorted(self._groups(), key=_in_a_table)}

    def count(self) -> int | None:
        """Give the number of rows that the filter keeps; None without a filter: nobody counted."""
        return None if self._clause is None else sum(one.count or 0 for one in self._grounds.values())

    @property
    def keys(self) -> list[str]:
        """The groups by the hash of what their rows are compared by, in the order of a table."""
        return list(self._grounds)

    def page(self) -> list[int]:
        """Give the numbers of the rows of the page, in order."""
        if self.asked.sort:
            return self._sorted()
        found: list[int] = []
        skipped, limit = self.asked.offset, self.asked.limit
        for ground in self._grounds.values():
            left = None if limit is None else limit - len(found)
            if left == 0:
                break
            some = self._of_group(ground, None if left is None else left + skipped)
            found += some[skipped:]
            skipped = max(0, skipped - len(some))
        return found

    def _sorted(self) -> list[int]:
        """Sort by one column, across groups; empty figures are last."""
        asked, number = self.asked, schema.rows.c.number
        one, descending = sort_of(asked.sort)
        value: ColumnElement[Any] = expression(schema.rows, one)
        is_empty = (value == "") if one.is_text else value.is_(None)
        value = by_bytes(value) if one.is_text else value
        order = value.desc() if descending else value.asc()
        found: list[int] = []
        most = None if asked.limit is None else asked.offset + asked.limit
        for part in (~is_empty, is_empty):
            query = self._kept(select(number)).where(part).order_by(order, number)
            if most is not None:
                query = query.limit(most - len(found))
            found += self._connection.execute(query).scalars()
        return found[asked.offset :]

    def newest(self, limit: int) -> list[int]:
        """Give the numbers of the rows that came in last, the latest first."""
        query = self._kept(select(schema.rows.c.number)).order_by(schema.rows.c.number.desc())
        return list(self._connection.execute(query.limit(limit)).scalars())

    def known(self, key: str) -> tuple[str, ...]:
        """Name the figures of the default front that any current row of a group has."""
        said = self._grounds[key].known
        if said is not None:
            return said
        rows = self._in_group(select(schema.rows.c.number), key).where(schema.is_current())
        each = select(*(rows.where(schema.rows.c[name].is_not(None)).exists() for name in schema.FRONT))
        found = self._connection.execute(each).one()
        known = tuple(name for name, is_there in zip(schema.FRONT, found, strict=True) if is_there)
        self._grounds[key] = replace(self._grounds[key], known=known)
        return known

    def contenders(self, key: str, objectives: Sequence[str]) -> Sequence[Any]:
        """Give number and figures of the rows of a group that its marks depend on."""
        table, asked = schema.rows, self.asked
        selected, current = self._figured(objectives), schema.is_current()
        is_default = not asked.objectives and self._clause is None
        known = self._in_group(selected, key).where(current, fronts.all_known(objectives))
        some = self._all(known.limit(_SMALL + 1))
        if len(some) <= _SMALL:
            return some
        count = select(func.count()).select_from(table).where(table.c.comparable == key)
        size = int(self._connection.execute(count).scalar_one())
        sampled = self._all(known.where(table.c.number % max(1, size // fronts.SAMPLE) == 0)) or some
        sample = dict(zip(("number", *_figures(asked, objectives)), map(list, zip(*sampled, strict=True)), strict=True))
        left = fronts.not_struck_out(sample, objectives, ties=asked.ties, by_intervals=bool(asked.objectives))
        if size > _SCANNED and not is_default:
            known = self._kept(selected).where(scanned(table.c.comparable) == key, current)
            known = known.where(fronts.all_known(objectives))
        return self._all(known.where(left))

    def front_figures(self, key: str) -> Floats | None:
        """Give number and `schema.FRONT` of the current rows of a group (rows, 5), NaN: empty; None: too many."""
        table = schema.rows
        query = self._in_group(select(table.c.number, *(table.c[name] for name in schema.FRONT)), key)
        found = self._all(query.where(schema.is_current()).limit(_SMALL + 1))
        if len(found) > _SMALL:
            return None
        return np.array([tuple(one) for one in found], dtype=np.float64).reshape(-1, 1 + len(schema.FRONT))

    def _figured(self, objectives: Sequence[str]) -> Select[Any]:
        table = schema.rows
        return select(table.c.number, *(expression(table, COLUMNS[name]) for name in _figures(self.asked, objectives)))

    def as_good(self, key: str, objectives: Sequence[str], page: Mapping[str, list[Any]]) -> Sequence[Any] | None:
        """Give the rows that may dominate one of a first page sorted by an objective; None for another page.

        The page holds all that is better in it: only what is as good as its last row may dominate, too.
        """
        table, asked, selected = schema.rows, self.asked, self._figured(objectives)
        if asked.objectives or asked.offset:
            return None
        if not asked.sort:
            figured = zip(page["auc"], page["accuracy"], strict=True)
            ranks = [
                -(accuracy if auc is None else auc) for auc, accuracy in figured if (auc, accuracy) != (None, None)
            ]
            last = table.c.rank_key == max(ranks, default=None)
            return self._all(self._in_group(selected, key).where(schema.is_current(), last))
        one, descending = sort_of(asked.sort)
        if one.name not in objectives or descending != (one.better == "max"):
            return None
        values = [value for value in page[one.name] if value is not None]
        if not values:
            return []
        last = table.c[one.name] == (min(values) if descending else max(values))
        return self._all(self._in_group(selected, key).where(schema.is_current(), last))

    def probed(self, pages: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, dict[int, str]]:
        """Mark the rows of a page on the default front, by group: one statement looks for what dominates each.

        Groups that are read instead are left out: those of many of its rows, and all where it is in the front's order.
        """
        asked, alike = self.asked, dict[tuple[str, ...], list[str]]()
        if asked.objectives or not (asked.sort or asked.offset):
            return {}
        one, descending = sort_of(asked.sort) if asked.sort and not asked.offset else (None, False)
        for key in (key for key, page in pages.items() if len(page["number"]) <= _PROBED):
            objectives = tuple(pareto.default_objectives(self.known(key)))
            is_by = one is not None and one.name in objectives and descending == (one.better == "max")
            if objectives and not is_by:
                alike.setdefault(objectives, []).append(key)
        on_front: set[int] = set()
        current = self._kept(select(schema.rows.c.number)).where(schema.is_current())
        for objectives, keys in alike.items():
            for query in fronts.on_front_among({key: pages[key] for key in keys}, objectives, current):
                on_front.update(self._connection.execute(query).scalars())
        among = {key: pages[key]["number"] for keys in alike.values() for key in keys}
        return {key: {one: "*" if one in on_front else "" for one in numbers} for key, numbers in among.items()}

    def shared(self) -> dict[str, str]:
        """Give what is the same of all rows that are shown, of the columns that a table says below."""
        table = schema.rows
        seen: dict[str, set[str]] = {name: set() for name in SHARED if name in GROUP}
        for ground in self._grounds.values():
            if not any(len(values) < 2 and str(ground.values[name]) not in values for name, values in seen.items()):
                continue  # nothing is learnt of it
            if ground.count or self._all(self._in_group(select(table.c.number), ground.key).limit(1)):
                for name, values in seen.items():
                    values.add(str(ground.values[name]))
        for name in (name for name in SHARED if name not in GROUP):
            first = self._all(self._kept(select(table.c[name])).limit(1))
            other = self._kept(select(table.c[name])).where(table.c[name] != first[0][0]) if first else None
            seen[name] = {first[0][0]} if other is not None and not self._all(other.limit(1)) else set()
        return {name: values.pop() for name, values in seen.items() if len(values) == 1 and values != {""}}

    def _all(self, query: Select[Any]) -> Sequence[Any]:
        return self._connection.execute(query).all()

    def _kept(self, query: Select[Any]) -> Select[Any]:
        """Keep the rows that are shown and that the filter keeps."""
        query = query.where(self._shown)
        return query if self._clause is None else query.where(self._clause)

    def _in_group(self, query: Select[Any], key: str) -> Select[Any]:
        """Keep those of one group, found by an index."""
        return self._kept(query).where(schema.rows.c.comparable == key)

    def _of_group(self, ground: _Ground, limit: int | None) -> list[int]:
        table = schema.rows
        key, number = table.c.rank_key, table.c.number
        found: list[int] = []
        for part in (key.is_not(None), key.is_(None)):
            query = select(number).where(part)
            query = self._in_group(query, ground.key).order_by(key, number)
            if limit is not None:
                query = query.limit(limit - len(found))
            found += self._connection.execute(query).scalars()
        return found

    def _groups(self) -> list[_Ground]:
        table = schema.rows
        values = select(table.c.comparable, *(table.c[name] for name in GROUP))
        every = {
            key: dict(zip(GROUP, group, strict=True))
            for key, *group in self._all(values.where(table.c.number.in_(schema.first_of_groups())))
        }
        if self._clause is None:
            return [_Ground(key, group) for key, group in every.items()]
        if (few := self._few()) is not None:
            return [
                self._counted(key, every[key], len(some), list(zip(*some, strict=True))) for key, some in few.items()
            ]
        counts = [func.count(table.c[name]) for name in schema.FRONT]
        counted = self._kept(select(table.c.comparable, func.count(), *counts))
        grounds = []
        for key, count, *each in self._all(counted.group_by(scanned(table.c.comparable))):
            grounds.append(self._counted(key, every[key], count, each))
        return grounds

    def _few(self) -> dict[str, list[Any]] | None:
        """Give which figures of the front the rows of a filter have, by group; None where these are many.

        What else is asked of them then looks them up by number: the filter is tried on all rows of the board once.
        """
        table = schema.rows
        there = [table.c[name].is_not(None) for name in schema.FRONT]
        found = self._all(self._kept(select(table.c.comparable, table.c.number, *there)).limit(_FEW + 1))
        if len(found) > _FEW:
            return None
        self._clause = table.c.number.in_([number for _, number, *_ in found])
        groups: dict[str, list[Any]] = {}
        for key, _, *each in found:
            groups.setdefault(key, []).append(each)
        return groups

    def _counted(self, key: str, group: Mapping[str, Any], count: int, each: Sequence[Any]) -> _Ground:
        known = tuple(name for name, numbers in zip(schema.FRONT, each, strict=True) if np.any(numbers))
        return _Ground(key, group, count, None if self.asked.every else known)


def _figures(asked: Request, objectives: Sequence[str]) -> tuple[str, ...]:
    """Name what the marks of some objectives are computed from: of a front of one's own the intervals as well."""
    return fronts.figures_of(objectives) if asked.objectives else tuple(objectives)


def _in_a_table(ground: _Ground) -> list[str]:
    names = ("dataset", "device", *(name for name in GROUP if name not in ("dataset", "device")))
    return [str(ground.values[name]) for name in names]
