"""The store: every row that was ever measured, in SQLite (WAL) or, for a team, PostgreSQL. Append-only.

A row is filed under `Row.key` and keeps that id; one that is there already is left alone, so writers never collide. A
row of a run that goes on is superseded, not changed, when it is further, and so is that of an earlier run of the same
thing (`superseding.py`). Readers see current rows: the latest of each, without those that people retracted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Select, func, insert, literal, select
from sqlalchemy.engine import make_url

from tutelage.leaderboard import columns as registry
from tutelage.leaderboard.columns import OF_FORMER
from tutelage.leaderboard.details import read_details
from tutelage.leaderboard.filters import parse
from tutelage.records import STATES, InputError, Measurement, Row, utc_now

from . import schema
from .engines import file_of, open_engine, plain_errors
from .migrating import prepare, version_of
from .rewriting import rewrite
from .superseding import chunks, insert_rows, supersede
from .values import row_values, to_row

if TYPE_CHECKING:
    import pandas as pd

# Rows read at once.
_PART = 2_000
# Characters of the reason of a retraction.
MOST_REASON = 500
# The hash of what a row is compared by, among the columns that are read.
_KEY = "comparable"
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
            prepare(self._write, migrate or file is not None, file if backup else None)
        else:
            with self._read() as connection:
                _check_readable(connection, self.name)

    @property
    def name(self) -> str:
        """The place as it may be printed: a URL's password is left out."""
        return make_url(self.place).render_as_string(hide_password=True) if "://" in self.place else self.place

    def add(self, rows: Sequence[Row], measurements: Sequence[Measurement] = ()) -> int:
        """File rows and their measurements in one transaction; return how many rows were new, or newer.

        A row that says how far it is (`details["state"]`) supersedes the one of its id that is not further, and those
        of earlier runs of the same thing (`Row.identity`) that are not further.
        """
        samples = [_measurement_values(measurement) for measurement in measurements]
        values = [row_values(row) for row in rows]
        measured = [row for row in rows if row.power_state and row.identity]
        vague = {row.identity: row.model_copy(update={"power_state": ""}).identity for row in measured}
        with self._write() as connection:
            _insert_missing(connection, schema.measurements, samples, "id")
            return insert_rows(connection, values, vague)

    def file_settings(self, settings: Callable[[Row], dict[str, Any] | None]) -> int:
        """File the settings of rows of runs that were filed without, where `settings` knows them; count those rows.

        Their details say them then, and later runs of the same supersede them. Ids and figures stay.
        """
        table = schema.rows
        query = select(table).where(table.c.state.in_(STATES), table.c.identity.is_(None))
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
                    changes.append({"of": found["number"], "identity": row.identity, "details": text})
            if changes:
                rewrite(connection, ("identity", "details"), changes)
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
        query = self._query(list(schema.rows.c), filter, limit, every)
        queries = [query] if ids is None else [query.where(schema.rows.c.row_id.in_(some)) for some in chunks(ids)]
        with self._read() as connection:
            return [to_row(found) for one in queries for found in connection.execute(one).mappings()]

    def history(self) -> list[Row]:
        """Give every row as it was filed, in that order: earlier states, superseded and retracted rows included."""
        with self._read() as connection:
            query = select(schema.rows).order_by(schema.rows.c.number)
            return [to_row(found) for found in connection.execute(query).mappings()]

    def row(self, row_id: str) -> Row:
        """Give one row by its id or the unambiguous beginning of it; a superseded or retracted one, too."""
        table = schema.rows
        beginning = func.substr(table.c.row_id, 1, len(row_id)) == row_id.lower()
        query = select(table).where(beginning, schema.is_last_state()).limit(2)
        with self._read() as connection:
            found = connection.execute(query).mappings().all()
        if not row_id or len(found) != 1:
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
    ) -> pd.DataFrame:
        """Give the same rows as a frame (`arch` and `details` stay JSON text): the fast way for 100,000 of them.

        categories: read what rows are compared by once for each group, as pandas categories: for the page.
        """
        from tutelage.leaderboard.export import typed_frame

        if not categories:
            return typed_frame(self.columns(filter, columns, every=every))
        names = [one.name for one in registry.known() if one.name != "on_front"] if columns is None else columns
        found = self._columns([*(name for name in names if name not in registry.GROUP), _KEY], filter, None, every)
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
        if reason is not None:
            reason = _one_line(reason)
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
        rows = schema.rows
        retracted = rows.c.row_id.in_(schema.retracted_ids())
        later = select(rows.c.number).join(schema.superseded).where(schema.superseded.c.by_id != rows.c.row_id)
        counts = [func.count().filter(condition) for condition in (~schema.is_current() & ~retracted, retracted)]
        query = self._query(counts, filter, every=True).order_by(None)
        with self._read() as connection:
            some = (later.limit(1), select(schema.retractions.c.number).limit(1))
            if all(connection.execute(one).first() is None for one in some):
                return 0, 0  # the usual case, at no cost
            superseded, taken_back = connection.execute(query).one()
        return int(superseded), int(taken_back)

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

    def count(self) -> int:
        with self._read() as connection:
            found = select(func.count()).select_from(schema.rows).where(schema.is_current())
            return int(connection.execute(found).scalar_one())

    def unfinished(self, filter: str | None = None) -> int:
        """Count the rows of a filter whose run goes on, or was stopped: figures of theirs are still to come."""
        query = self._query([schema.rows.c.number], filter).where(schema.rows.c.state.in_(STATES[:-1]))
        with self._read() as connection:
            return len(connection.execute(query).all())

    def version(self) -> int:
        """Give a number that grows with every row that is filed, a newer one of the same id included, or retracted."""
        with self._read() as connection:
            tables = (schema.rows, schema.retractions)
            return sum(int(connection.execute(select(func.max(one.c.number))).scalar() or 0) for one in tables)

    def close(self) -> None:
        self._engine.dispose()

    def _columns(
        self,
        names: Sequence[str],
        filter: str | None,
        ids: Sequence[str] | None,
        every: bool,
        *alike: ColumnElement[bool],
    ) -> dict[str, list[Any]]:
        """Read columns of the tables, and those that stand in the details out of their text."""
        table = schema.rows
        by_name = registry.by_any_name()
        named = {name: by_name[name] for name in names if name != _KEY}
        wanted = list(dict.fromkeys(named.values()))
        said: dict[str, ColumnElement[Any]] = {
            name: make() if every else literal("") for name, make in table.info["expressions"].items()
        }
        by_group = set(registry.GROUP) if _KEY in names else set()
        plain = [one for one in wanted if not one.at and one.name not in by_group]
        stored = {one.name: said.get(one.name, table.c.get(one.name)) for one in plain}
        if _KEY in names:
            stored[_KEY] = table.c.comparable
        inside = [one for one in wanted if one.at]
        query = self._query([*stored.values()] + [table.c.details] * bool(inside), filter, None, every)
        query = query.where(*alike)
        queries = [query] if ids is None else [query.where(table.c.row_id.in_(some)) for some in chunks(ids)]
        found: dict[str, list[Any]] = {name: [] for name in (*stored, *(one.name for one in inside))}
        with self._read() as connection:
            # In parts: the details of 100,000 rows are not held at once.
            for rows in (part for one in queries for part in connection.execute(one).partitions(_PART)):
                columns = list(zip(*rows, strict=True))
                for name, values in zip(stored, columns, strict=False):
                    found[name].extend(values)
                for name, texts in read_details(columns[-1], inside).items() if inside else ():
                    found[name].extend(texts)
        if by_group & {one.name for one in wanted}:
            keys = self._keys()
            for place, name in enumerate(registry.GROUP):
                found[name] = [keys[key][place] for key in found[_KEY]]
        return {name: found[named[name].name if name in named else name] for name in names}

    def _keys(self) -> dict[str, tuple[Any, ...]]:
        """Give what rows are compared by, once for each group, by its hash."""
        table = schema.rows
        first = select(func.min(table.c.number)).group_by(table.c.comparable)
        query = select(table.c.comparable, *(table.c[name] for name in registry.GROUP)).where(table.c.number.in_(first))
        with self._read() as connection:
            return {key: tuple(values) for key, *values in connection.execute(query)}

    def _query(
        self, columns: list[Any], filter: str | None, limit: int | None = None, every: bool = False
    ) -> Select[Any]:
        shown = schema.is_last_state() if every else schema.is_current()
        query = select(*columns).where(shown).order_by(schema.rows.c.number)
        if filter:
            query = query.where(parse(filter).clause(schema.rows))
        return query if limit is None else query.limit(limit)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with plain_errors(self.name, writes=False), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        if self.read_only:
            raise InputError(f"{self.name} was opened to be read only")
        writer = self._engine.execution_options(write=True)
        with plain_errors(self.name, writes=True), writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")
            yield connection


def _check_readable(connection: Connection, name: str) -> None:
    found = version_of(connection)
    if found == 0:
        raise InputError(f"{name} holds no leaderboard yet: run a recipe first, or name another --workspace")
    if found != schema.SCHEMA_VERSION:
        raise InputError(
            f"{name} has schema version {found}, this version of tutelage reads {schema.SCHEMA_VERSION}: "
            + (
                "`tutelage leaderboard migrate` brings it up to date; older versions then cannot open it"
                if found < schema.SCHEMA_VERSION
                else "use the newer tutelage that wrote it"
            )
        )


def _insert_missing(connection: Connection, table: Any, values: Sequence[Mapping[str, Any]], key: str) -> int:
    """Insert what is not there yet and count it: writers take turns, so what was looked up stays true."""
    unique = {value[key]: value for value in reversed(values)}  # of equal ids the first
    num_added = 0
    for ids in chunks(list(reversed(unique))):
        there = set(connection.execute(select(table.c[key]).where(table.c[key].in_(ids))).scalars())
        missing = [unique[one] for one in ids if one not in there]
        if missing:
            connection.execute(insert(table), missing)
        num_added += len(missing)
    return num_added


def _one_line(reason: str) -> str:
    """Give a reason as tables and messages write it: one line, whose blanks are single; InputError for another."""
    reason = " ".join(reason.split())
    if not reason:
        raise InputError(f"the reason {reason!r} says nothing: write why nobody should use the row")
    if len(reason) > MOST_REASON or not reason.isprintable():
        shown = f"{reason[:60]!r}{'...' * (len(reason) > 60)}"
        raise InputError(f"the reason {shown} is not one line: write at most {MOST_REASON} printable characters")
    return reason


def _measurement_values(measurement: Measurement) -> dict[str, Any]:
    body = measurement.model_dump_json()
    return {"id": measurement.id, "device": measurement.device, "runtime": measurement.runtime, "body": body}
