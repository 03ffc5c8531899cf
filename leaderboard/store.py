"""The store: every row that was ever measured, in SQLite (WAL) or, for a team, PostgreSQL. Append-only.

Enters: rows and the measurements with their raw samples. Leaves: rows by filter, as records or as a frame. A row is
named by `Row.key`, the hash of what it says; one that is there already is left alone, so writers never collide.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Double, Engine, Select, case, cast, create_engine, event, func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from tutelage.records import InputError, Measurement, Row

from . import schema
from .filters import parse
from .pareto import GROUP
from .ties import LATENCY_BOUNDS

if TYPE_CHECKING:
    import pandas as pd

# A writer waits this long for the others; eight of them committing row by row stay far below.
BUSY_SECONDS = 60
# Ids looked up in one statement: SQLite takes at most 32,766 values.
_CHUNK = 500
# Any number will do, as long as every tutelage takes the same one: writers of one server take turns, as SQLite's do.
_WRITE_LOCK = 0x7475746C


class Store:
    """The leaderboard of a workspace: `Store(path)` for SQLite, `Store("postgresql://...")` for a shared server."""

    def __init__(self, place: str | Path, *, read_only: bool = False) -> None:
        self.place = str(place)
        self.read_only = read_only
        self._engine = _open(place, read_only)
        if not read_only:
            with self._write() as connection:
                schema.prepare(connection)
        else:
            with self._read() as connection:
                _check_readable(connection, self.name)

    @property
    def name(self) -> str:
        """The place as it may be printed: a URL's password is left out."""
        return make_url(self.place).render_as_string(hide_password=True) if "://" in self.place else self.place

    def add(self, rows: Sequence[Row], measurements: Sequence[Measurement] = ()) -> int:
        """File rows and their measurements in one transaction; return how many rows were new."""
        samples = [_measurement_values(measurement) for measurement in measurements]
        values = [_row_values(row) for row in rows]
        with self._write() as connection:
            _insert_missing(connection, schema.measurements, samples, "id")
            return _insert_missing(connection, schema.rows, values, "row_id")

    def rows(
        self, filter: str | None = None, *, limit: int | None = None, ids: Sequence[str] | None = None
    ) -> list[Row]:
        """Give the rows that a filter keeps, e.g. `latency_p50_ms<5 and role=student`, or of ids; oldest first."""
        query = self._query(list(schema.rows.c), filter, limit)
        chunks = [query] if ids is None else [query.where(schema.rows.c.row_id.in_(some)) for some in _chunks(ids)]
        with self._read() as connection:
            return [_to_row(found) for chunk in chunks for found in connection.execute(chunk).mappings()]

    def row(self, row_id: str) -> Row:
        """Give one row by its id or the unambiguous beginning of it."""
        table = schema.rows
        query = select(table).where(table.c.row_id.startswith(row_id, autoescape=True)).limit(2)
        with self._read() as connection:
            found = connection.execute(query).mappings().all()
        if not row_id or len(found) != 1:
            what = "no row" if not found else "more than one row"
            raise InputError(f"{what} has an id that begins with {row_id!r}: see `tutelage leaderboard show`")
        return _to_row(found[0])

    def frame(self, filter: str | None = None, *, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Give the same rows as a frame (`arch` and `details` stay JSON text): the fast way for 100,000 of them."""
        from .export import typed_frame

        return typed_frame(self.columns(filter, columns))

    def columns(
        self, filter: str | None = None, names: Sequence[str] | None = None, *, ids: Sequence[str] | None = None
    ) -> dict[str, list[Any]]:
        """Give columns as lists, oldest row first: of the rows that a filter keeps, or of those with these ids."""
        table = schema.rows
        if names is None:
            names = [*(column.name for column in table.c if column.name != "number"), *LATENCY_BOUNDS]
        query = self._query([self._column(name) for name in names], filter, None)
        chunks = [query] if ids is None else [query.where(table.c.row_id.in_(some)) for some in _chunks(ids)]
        with self._read() as connection:
            found = [row for chunk in chunks for row in connection.execute(chunk).all()]
        by_column = zip(*found, strict=True) if found else ([] for _ in names)
        return dict(zip(names, map(list, by_column), strict=True))

    def details(self, ids: Sequence[str]) -> dict[str, str]:
        """Give the `details` of some rows as JSON text, by id."""
        found = self.columns(names=("row_id", "details"), ids=ids)
        return dict(zip(found["row_id"], found["details"], strict=True))

    def peers(self, row: Row, names: Sequence[str]) -> dict[str, list[Any]]:
        """Give columns of all rows that may share a front with this one (itself among them), oldest first."""
        table = schema.rows
        query = self._query([self._column(name) for name in names], None, None)
        for name in GROUP:
            value = getattr(row, name)
            query = query.where(table.c[name].is_(None) if value is None else table.c[name] == value)
        with self._read() as connection:
            found = connection.execute(query).all()
        return dict(zip(names, map(list, zip(*found, strict=True)), strict=True))

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
                for some in _chunks(ids)
                for body in connection.execute(select(table.c.body).where(table.c.id.in_(some))).scalars()
            ]
        return [Measurement.model_validate_json(body) for body in bodies]

    def count(self) -> int:
        with self._read() as connection:
            return int(connection.execute(select(func.count()).select_from(schema.rows)).scalar_one())

    def import_file(self, path: Path) -> int:
        """Add other people's results (CSV, JSON, timm's results.csv, a leaderboard.db), marked as imported."""
        from .importing import read_file

        return self.add(*read_file(path))

    def merge(self, other: Store) -> int:
        """Add the rows of another store with their raw samples, marked as imported; return how many were new."""
        from .importing import mark_imported

        rows = [mark_imported(row, other.name) for row in other.rows()]
        return self.add(rows, other.measurements(sorted({row.measurement for row in rows if row.measurement})))

    def close(self) -> None:
        self._engine.dispose()

    def _column(self, name: str) -> Any:
        """Give a column of the rows; the interval of a latency is cut from the text of the details.

        `"NAME": ` stands there once: inside a string its quotes are escaped. Parsing the JSON of every row would read
        pictures, and refuse details with a NaN.
        """
        if name not in LATENCY_BOUNDS:
            return schema.rows.c[name]
        details, key = schema.rows.c.details, f'"{name}": '
        if self._engine.dialect.name == "postgresql":
            return cast(func.substring(details, f"{key}([-+0-9.eE]+)"), Double).label(name)
        at = func.instr(details, key)  # CAST reads as far as the text is a number
        return case((at > 0, cast(func.substr(details, at + len(key), 32), Double))).label(name)

    def _query(self, columns: list[Any], filter: str | None, limit: int | None) -> Select[Any]:
        query = select(*columns).order_by(schema.rows.c.number)
        if filter:
            query = query.where(parse(filter).clause(schema.rows))
        return query if limit is None else query.limit(limit)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with _told_plainly(self.name), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        if self.read_only:
            raise InputError(f"{self.name} was opened to be read only")
        writer = self._engine.execution_options(write=True)
        with _told_plainly(self.name), writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")
            yield connection


def _open(place: str | Path, read_only: bool) -> Engine:
    text = str(place)
    if "://" in text and not text.startswith("sqlite:"):
        return _open_server(text)
    path = Path(text.removeprefix("sqlite:///")).expanduser().absolute()
    if read_only and not path.is_file():
        raise InputError(f"there is no leaderboard at {path}: run a recipe first, or name another --workspace")
    if not path.parent.is_dir():
        raise InputError(f"the folder of {path} does not exist: make it, or name another --workspace")
    uri = f"{path.as_uri()}?mode={'ro' if read_only else 'rwc'}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    # No pool: opening a file is cheap, and a connection that lived through a fork would corrupt the database.
    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA foreign_keys=ON")
        if not read_only:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")  # a committed row outlives a power cut, too
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes its lock at once: two that began by reading would deadlock when both want to write.
        writes = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _open_server(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "postgresql":
            raise InputError(f"{parsed.render_as_string()} is neither a file nor a postgresql:// URL")
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        return create_engine(parsed, pool_pre_ping=True)
    except ArgumentError as error:
        raise InputError(f"the database URL cannot be read ({error}): postgresql://USER@HOST/NAME") from error
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise InputError(f"PostgreSQL needs a driver ({error}): pip install 'psycopg[binary]'") from error


def _check_readable(connection: Connection, name: str) -> None:
    found = schema.version_of(connection)
    if found != schema.SCHEMA_VERSION:
        raise InputError(
            f"{name} has schema version {found}, this version of tutelage reads {schema.SCHEMA_VERSION}: "
            "open it once for writing and it is migrated"
            if found < schema.SCHEMA_VERSION
            else "use a newer tutelage"
        )


@contextmanager
def _told_plainly(name: str) -> Iterator[None]:
    """Turn a driver's error into one line that names the store and the remedy."""
    try:
        yield
    except IntegrityError as error:
        if "FOREIGN KEY" in str(error.orig).upper():
            raise InputError(
                f"{name}: a row names a measurement that is not there; nothing was written: "
                "pass its Measurement in the same add()"
            ) from error
        raise
    except DBAPIError as error:
        reason = str(error.orig).strip().split("\n")[0]
        raise InputError(f"{name}: {reason}; nothing of this write was kept. {_remedy(reason)}") from error
    except SQLAlchemyError as error:
        raise InputError(f"{name}: {str(error).splitlines()[0]}") from error


def _remedy(reason: str) -> str:
    remedies = {
        "full": "Free space on that disk and run again: finished stages are not done twice",
        "disk I/O error": "Check the disk and its free space, then run again",
        "not a database": "Name another file: this one was not made by tutelage",
        "malformed": "Restore it from a copy; `tutelage leaderboard import` merges what others have",
        "readonly": "Make the file and its folder writable, or name another --workspace",
        "unable to open": "Make the file and its folder writable, or name another --workspace",
        "locked": "Another program holds it: close that one and run again",
        "append-only": "Rows are never changed or deleted: add a new one",
    }
    return next((remedy for word, remedy in remedies.items() if word in reason), "Check that the server is up")


def _insert_missing(connection: Connection, table: Any, values: Sequence[Mapping[str, Any]], key: str) -> int:
    """Insert what is not there yet and count it: writers take turns, so what was looked up stays true."""
    statement: Any = sqlite.insert(table).on_conflict_do_nothing(index_elements=[key])
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql  # a quarter of the start-up time, for a team's server alone

        statement = postgresql.insert(table).on_conflict_do_nothing(index_elements=[key])
    first: dict[str, Mapping[str, Any]] = {}
    for value in values:
        first.setdefault(value[key], value)
    unique = list(first.values())
    num_added = 0
    for start in range(0, len(unique), _CHUNK):
        chunk = unique[start : start + _CHUNK]
        wanted = select(table.c[key]).where(table.c[key].in_([value[key] for value in chunk]))
        there = set(connection.execute(wanted).scalars())
        missing = [value for value in chunk if value[key] not in there]
        if missing:
            connection.execute(statement, missing)
        num_added += len(missing)
    return num_added


def _chunks(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]


def _row_values(row: Row) -> dict[str, Any]:
    values = {column.name: getattr(row, column.name, None) for column in schema.rows.c if column.name != "number"}
    values["row_id"] = row.key
    values["arch"] = None if row.arch is None else json.dumps(row.arch.to_dict())
    values["measurement"] = row.measurement or None
    values["details"] = json.dumps(row.details, ensure_ascii=False, default=str)
    return values | schema.gains_of(row.details)


def _measurement_values(measurement: Measurement) -> dict[str, Any]:
    body = measurement.model_dump_json()
    return {"id": measurement.id, "device": measurement.device, "runtime": measurement.runtime, "body": body}


def _to_row(found: Mapping[Any, Any]) -> Row:
    values = {name: value for name, value in found.items() if name not in ("number", "row_id", *schema.GAINS)}
    values["arch"] = None if values["arch"] is None else json.loads(values["arch"])
    values["measurement"] = values["measurement"] or ""
    values["details"] = json.loads(values["details"])
    return Row.model_validate(values)
