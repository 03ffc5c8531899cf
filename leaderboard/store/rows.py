"""The store: every row that was ever measured, in SQLite (WAL) or, for a team, PostgreSQL. Append-only.

A row is filed under `Row.key` and keeps that id; one that is there already is left alone, so writers never collide. A
row of a run that goes on is superseded, not changed, when it is further, and so is that of an earlier run of the same
thing (`superseding.py`). Readers see current rows: the latest of each, without those that people retracted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Select, func, insert, select
from sqlalchemy.engine import make_url

from tutelage.leaderboard import columns as registry
from tutelage.leaderboard.columns import OF_FORMER
from tutelage.leaderboard.details import read_details
from tutelage.leaderboard.filters import parse
from tutelage.records import STATES, InputError, Measurement, Row, utc_now

from . import schema
from .engines import file_of, open_engine, plain_errors
from .migrating import check_readable, prepare
from .rewriting import rewrite
from .superseding import chunks, insert_missing, insert_rows, supersede
from .values import measurement_values, one_line, row_values, streamed, to_row

if TYPE_CHECKING:
    import pandas as pd

# Rows given at once, and those fetched at once of which the details, up to 31 kB each, are read with them.
_PART, _LONG_PART = 2_000, 250
# The hash of what a row is compared by, among the columns that are read.
_KEY = "comparable"
# What the table alone knows of a row, among the columns that are read.
_OWN = (_KEY, "number")
# A row whole, its details from their own table.
_WHOLE = (*schema.rows.c, schema.details_text().label("details"))
# Any number will do, as long as every tutelage takes the same one: writers of one server take turns, as SQLite's do.
_WRITE_LOCK = 0x7475746C


class Store:
    """The leaderboard of a workspace: `Store(path)` for SQLite, `Store("postgresql://...")` for a shared server."""

    def __init__(
        self, place: str | Path, *, read_only: bool = False, migrate: bool = False, backup: bool = True
    ) -> None:
        """Open a store: to be read as it is, or for writing, when an empty one gets its tables.

        An older schema of one's own file is migrated after it was copied; a team's server is where the team says so
        (`migrate`), because colleagues' older versions can then not open it. `backup`: copy a file before.
        """
        self.place = str(place)
        self.read_only = read_only
        self._engine = open_engine(place, read_only)
        if not read_only:
            file = file_of(place)
            prepare(partial(self._write, made=False), migrate or file is not None, file if backup else None)
        else:
            with self._read() as connection:
                check_readable(connection, self.name)

    @property
    def name(self) -> str:
        """The place as it may be printed: a URL's password is left out."""
        return make_url(self.place).render_as_string(hide_password=True) if "://" in self.place else self.place

    def add(self, rows: Sequence[Row], measurements: Sequence[Measurement] = ()) -> int:
        """File rows and their measurements in one transaction; return how many rows were new, or newer.

        A row that says how far it is (`details["state"]`) supersedes the one of its id that is not further, and those
        of earlier runs of the same thing (`Row.identity`) that are not further.
        """
        samples = [measurement_values(measurement) for measurement in measurements]
        values = [row_values(row) for row in rows]
        measured = [row for row in rows if row.power_state and row.identity]
        vague = {row.identity: row.model_copy(update={"power_state": ""}).identity for row in measured}
        with self._write() as connection:
            insert_missing(connection, schema.measurements, samples, "id")
            return insert_rows(connection, values, vague)

    def file_settings(self, settings: Callable[[Row], dict[str, Any] | None]) -> int:
        """File the settings of rows of runs that were filed without, where `settings` knows them; count those rows.

        Their details say them then, and later runs of the same supersede them. Ids and figures stay.
        """
        table = schema.rows
        query = select(*_WHOLE).where(table.c.state.in_(STATES), table.c.identity.is_(None))
        with self._read() as connection:
            if connection.execute(query.limit(1)).first() is None:
                return 0  # the usual case, at no cost
        with self._write() as connection:
            changes = []
            for found in connection.execute(query).mappings():
                row = to_row(found)
                if (said := settings(row)) is not None:
                    made = {**row.details["how"], "settings": said}
                    row = row.model_copy(update={"details": {**row.details, "how": made}})
                    text = row_values(row)["details"]
                    changes.append({"of": found["number"], "identity": row.identity, "body": text})
            if changes:
                rewrite(connection, ("identity",), changes)
                rewrite(connection, ("body",), changes, "details")
                supersede(connection, {one["identity"] for one in changes}, {})
            return len(changes)

    def rows(
        self,
        filter: str | None = None,
        *,
        limit: int | None = None,
        ids: Sequence[str] | None = None,
        every: bool = False,
    ) -> list[Row]:
        """Give the rows that a filter keeps, e.g. `latency_p50_ms<5 and role=student`, or of ids; oldest first.

        every: superseded and retracted ones, too, each in its last state.
        """
        query = self._query(list(_WHOLE), filter, limit, every)
        queries = [query] if ids is None else [query.where(schema.rows.c.row_id.in_(some)) for some in chunks(ids)]
        with self._read() as connection:
            return [to_row(found) for one in queries for found in connection.execute(one).mappings()]

    def numbered(self, numbers: Sequence[int]) -> list[Row]:
        """Give the rows of these numbers, in this order."""
        found: dict[int, Row] = {}
        with self._read() as connection:
            for some in chunks(numbers):
                query = select(*_WHOLE).where(schema.rows.c.number.in_(some))
                found |= {row["number"]: to_row(row) for row in connection.execute(query).mappings()}
        return [found[number] for number in numbers]

    def history(self) -> list[Row]:
        """Give every row as it was filed, in that order: earlier states, superseded and retracted rows included."""
        with self._read() as connection:
            query = select(*_WHOLE).order_by(schema.rows.c.number)
            return [to_row(found) for found in connection.execute(query).mappings()]

    def row(self, row_id: str) -> Row:
        """Give one row by its id or the unambiguous beginning of it; a superseded or retracted one, too."""
        query = select(*_WHOLE).where(schema.has_id(row_id), schema.is_last_state()).limit(2)
        with self._read() as connection:
            found = connection.execute(query).mappings().all()
        if len(found) != 1:
            what = "no row" if not found else "more than one row"
            raise InputError(f"{what} has an id that begins with {row_id!r}: see `tutelage leaderboard show`")
        return to_row(found[0])

    def frame(
        self,
        filter: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        every: bool = False,
        categories: bool = False,
        numbers: Sequence[int] | None = None,
    ) -> pd.DataFrame:
        """Give the same rows as a frame (`arch` and `details` stay JSON text): the fast way for 100,000 of them.

        categories: read what rows are compared by once for each group, as pandas categories: for the page. numbers: of
        these rows, in this order.
        """
        from tutelage.leaderboard.export import typed_frame

        if not categories:
            return typed_frame(self.columns(filter, columns, every=every))
        names = [one.name for one in registry.known() if one.name != "on_front"] if columns is None else columns
        wanted = [*(name for name in names if name not in registry.GROUP), _KEY]
        found = self._columns(wanted, filter, None, every) if numbers is None else self.by_number(numbers, wanted)
        return typed_frame(found, keys=(found.pop(_KEY), self._keys()))

    def columns(
        self,
        filter: str | None = None,
        names: Sequence[str] | None = None,
        *,
        ids: Sequence[str] | None = None,
        every: bool = False,
    ) -> dict[str, list[Any]]:
        """Give columns as lists, oldest row first: of the rows that a filter keeps, or of those with these ids.

        every: of superseded and retracted rows, too, each in its last state.
        """
        if names is None:
            names = [one.name for one in registry.known() if one.name != "on_front"]
        return self._columns(names, filter, ids, every)

    def by_number(self, numbers: Sequence[int], names: Sequence[str], *, every: bool = False) -> dict[str, list[Any]]:
        """Give columns of the rows of these numbers, in this order."""
        places = {number: place for place, number in enumerate(numbers)}
        found: dict[str, list[Any]] = {name: [None] * len(numbers) for name in names}
        for part in self.parts(tuple(dict.fromkeys(("number", *names))), numbers=numbers, every=every):
            at = [places[number] for number in part["number"]]
            for name in names:
                for place, value in zip(at, part[name], strict=True):
                    found[name][place] = value
        return found

    def details(self, ids: Sequence[str]) -> dict[str, str]:
        """Give the `details` of some rows as JSON text, by id."""
        found = self.columns(names=("row_id", "details"), ids=ids)
        return dict(zip(found["row_id"], found["details"], strict=True))

    def peers(self, row: Row, names: Sequence[str]) -> dict[str, list[Any]]:
        """Give columns of all current rows that may share a front with this one, oldest first."""
        return self._columns(names, None, None, False, schema.rows.c.comparable == row.comparable)

    def former(self, row_id: str) -> dict[str, str]:
        """Say of the row of a whole id what superseded it and why it was retracted; a current row has neither."""
        found = self.columns(names=OF_FORMER, ids=[row_id], every=True)
        return {name: values[0] for name, values in found.items()}

    def retract(self, row_id: str, reason: str | None) -> Row:
        """Retract the row of an id, or of the beginning of one, for a reason; None: let it stand again.

        Nothing is deleted: readers that ask for every row see it with the reason, one line of at most `MOST_REASON`
        characters. InputError where that is so already.
        """
        row = self.row(row_id)
        reason = None if reason is None else one_line(reason)
        with self._write() as connection:  # writers take turns: what is read here stays true
            found = self.former(row.key)["retracted"]
            if reason is None and not found:
                raise InputError(f"row {row.key} is not retracted: there is nothing to undo")
            if reason is not None and found:
                raise InputError(f"row {row.key} is retracted already: {found}")
            values = {"row_id": row.key, "reason": reason, "created": utc_now()}
            connection.execute(insert(schema.retractions), [values])
        return row

    def num_hidden(self, filter: str | None = None) -> tuple[int, int]:
        """Count the rows of a filter that readers do not see: those superseded by later runs, and the retracted."""
        rows, by = schema.rows, schema.superseded
        retracted = rows.c.row_id.in_(schema.retracted_ids())
        standing = select(by.c.number).where(by.c.by_id.not_in(schema.retracted_ids()))
        conditions = (rows.c.number.in_(standing) & ~retracted, retracted)
        with self._read() as connection:
            counts = [
                connection.execute(self._query([func.count()], filter, every=True).order_by(None).where(one))
                for one in conditions
            ]
            superseded, taken_back = (int(count.scalar_one()) for count in counts)
        return superseded, taken_back

    def measurement(self, measurement_id: str) -> Measurement:
        """Give the raw samples behind a row (`Row.measurement`)."""
        table = schema.measurements
        with self._read() as connection:
            body = connection.execute(select(table.c.body).where(table.c.id == measurement_id)).scalar()
        if body is None:
            raise InputError(f"{self.name} has no measurement {measurement_id!r}")
        return Measurement.model_validate_json(body)

    def measurements(self, ids: Sequence[str]) -> list[Measurement]:
        """Give those of the named measurements that the store has."""
        table = schema.measurements
        with self._read() as connection:
            bodies = [
                body
                for some in chunks(ids)
                for body in connection.execute(select(table.c.body).where(table.c.id.in_(some))).scalars()
            ]
        return [Measurement.model_validate_json(body) for body in bodies]

    def count(self, filter: str | None = None, *, every: bool = False) -> int:
        """Count the rows that readers see; without a filter by those that they do not see, which are fewer."""
        rows, by = schema.rows, schema.superseded
        with self._read() as connection:
            if filter:
                counted = self._query([func.count()], filter, every=every).order_by(None)
                return int(connection.execute(counted).scalar_one())
            all_ = select(func.count()).select_from(rows)
            if every:
                hidden = all_.join(by, (by.c.number == rows.c.number) & (by.c.by_id == rows.c.row_id))
            else:
                standing = select(by.c.number).where(by.c.by_id.not_in(schema.retracted_ids()))
                # Their numbers alone: tried on each row, they would cost as much as counting all of them once more.
                hidden = select(func.count()).select_from(standing.union(schema.retracted_numbers()).subquery())
            return int(connection.execute(all_).scalar_one() - connection.execute(hidden).scalar_one())

    def unfinished(self, filter: str | None = None) -> int:
        """Count the rows of a filter whose run goes on, or was stopped: figures of theirs are still to come."""
        query = self._query([func.count()], filter).order_by(None).where(schema.rows.c.state.in_(STATES[:-1]))
        with self._read() as connection:
            return int(connection.execute(query).scalar_one())

    def version(self) -> int:
        """Give a number that grows with every row that is filed (a newer one of an id, too), retracted or tagged."""
        with self._read() as connection:
            tables = (schema.rows, schema.retractions, schema.tags)
            return sum(int(connection.execute(select(func.max(one.c.number))).scalar() or 0) for one in tables)

    def close(self) -> None:
        self._engine.dispose()

    def parts(
        self,
        names: Sequence[str],
        filter: str | None = None,
        *,
        ids: Sequence[str] | None = None,
        every: bool = False,
        numbers: Sequence[int] | None = None,
        by_group: bool = False,
        alike: Sequence[ColumnElement[bool]] = (),
    ) -> Iterator[dict[str, list[Any]]]:
        """Yield columns of some rows at a time, oldest first: what they hold is not held at once.

        Columns that stand in the details are read out of their text. ids, numbers: of these rows, some at a time;
        numbers are of any row, whatever became of it since they were read. by_group: read what rows are compared by
        once for each group. alike: what else must hold of the rows.
        """
        by_name = registry.by_any_name()
        named = {name: by_name.get(name) or registry.column(name) for name in names if name not in _OWN}
        wanted = list(dict.fromkeys(named.values()))
        keys = self._keys() if by_group else {}
        inside = [one for one in wanted if one.at and one.name not in schema.rows.c]
        plain = [one for one in wanted if one not in inside and not (by_group and one.is_key)]
        stored = {one.name: schema.stored(one, every) for one in plain}
        own = [name for name in _OWN if name in names or (by_group and name == _KEY)]
        stored |= {name: schema.rows.c[name] for name in own}
        read = [*stored.values()] + [schema.details_text()] * bool(inside)
        query = self._query(read, filter, None, every).where(*alike)
        queries = [query] if ids is None else [query.where(schema.rows.c.row_id.in_(some)) for some in chunks(ids)]
        if numbers is not None:
            table = schema.rows
            queries = [
                select(*read).select_from(table).where(table.c.number.in_(some)).order_by(table.c.number)
                for some in chunks(numbers)
            ]
        with self._read() as connection:
            text = [*stored, "details"].index("details") if inside or "details" in stored else None
            for rows in streamed(connection, queries, _PART, _PART if text is None else _LONG_PART, text):
                columns = list(zip(*rows, strict=True))
                found: dict[str, Any] = dict(zip(stored, columns, strict=False))
                if inside:
                    found |= read_details(columns[-1], inside)
                if by_group:
                    for place, name in enumerate(registry.GROUP):
                        found[name] = [keys[key][place] for key in found[_KEY]]
                yield {name: list(found[named[name].name if name in named else name]) for name in names}

    def _columns(
        self,
        names: Sequence[str],
        filter: str | None,
        ids: Sequence[str] | None,
        every: bool,
        *alike: ColumnElement[bool],
    ) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {name: [] for name in names}
        for part in self.parts(names, filter, ids=ids, every=every, by_group=_KEY in names, alike=alike):
            for name, values in part.items():
                found[name].extend(values)
        return found

    def _keys(self) -> dict[str, tuple[Any, ...]]:
        """Give what rows are compared by, once for each group, by its hash."""
        table, first = schema.rows, schema.first_of_groups()
        query = select(table.c.comparable, *(table.c[name] for name in registry.GROUP)).where(table.c.number.in_(first))
        with self._read() as connection:
            return {key: tuple(values) for key, *values in connection.execute(query)}

    def _query(
        self, columns: list[Any], filter: str | None, limit: int | None = None, every: bool = False
    ) -> Select[Any]:
        shown = schema.is_last_state() if every else schema.is_current()
        query = select(*columns).select_from(schema.rows).where(shown).order_by(schema.rows.c.number)
        if filter:
            query = query.where(parse(filter).clause(schema.rows))
        return query if limit is None else query.limit(limit)

    def reading(self) -> AbstractContextManager[Connection]:
        """Open a connection for several readings of one state of the store."""
        return self._read()

    def writing(self) -> AbstractContextManager[Connection]:
        """Open a write transaction; writers take turns."""
        return self._write()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with plain_errors(self.name, writes=False), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self, *, made: bool = True) -> Iterator[Connection]:
        if self.read_only:
            raise InputError(f"{self.name} was opened to be read only")
        with plain_errors(self.name, writes=True), self._engine.execution_options(write=True).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")
            if made:
                check_readable(connection, self.name)  # it may have been migrated since it was opened
            yield connection
