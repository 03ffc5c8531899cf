"""The tables of the store and how an older store becomes a current one.

`prepare` makes the tables of `SCHEMA_VERSION`, append-only by trigger, inside a write transaction.
Version 1 had the tables alone; version 2 forbids UPDATE and DELETE and indexes what filters read; version 3 has
the gain over a student without a teacher (`gain_...`) as columns, filled from the details of the rows that are there;
version 4 keeps several states of a row under one id, the latest of which `is_current`; version 5 has `gain_margin`. A
column that stands in the details needs no version: it is read there (`leaderboard/details.py`), in stores of any age.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.schema import CreateTable

from tutelage.leaderboard import columns
from tutelage.leaderboard.columns import GAINS
from tutelage.records import InputError, Row, utc_now

SCHEMA_VERSION = 5

metadata = MetaData()

versions = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("applied", String(32), nullable=False),
)

measurements = Table(
    "measurements",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("device", Text, nullable=False),
    Column("runtime", Text, nullable=False),
    Column("body", Text, nullable=False),  # the whole record as JSON, raw samples included
)


def _table_column(one: columns.Column) -> Column[Any]:
    """Give a field of the rows as a column of the table; BigInteger, since a teacher's MACs pass 2^31."""
    if one.name == "measurement":
        return Column(one.name, String(32), ForeignKey("measurements.id"))  # NULL: no raw samples
    if not one.is_number:
        return Column(one.name, Text, nullable=one.name == "arch")
    return Column(one.name, BigInteger if one.is_whole else Double, nullable=one.name != "seed")


# Figures are columns of their own so that filters run in the database; `arch` and `details` are JSON text. `number`
# keeps the order in which rows came in. The details are last: SQLite reads what stands before a long text without
# walking through it.
_FIELDS = tuple(one for one in columns.BUILTIN if one.name in Row.model_fields and one.name != "details")
rows = Table(
    "rows",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("row_id", String(32), nullable=False),
    *(_table_column(one) for one in _FIELDS),
    *(Column(name, Double) for name in GAINS),
    Column("state", String(16)),  # how far the row of a run is (`records.STATES`); NULL: not of a run, or of version 3
    Column("details", Text, nullable=False),
)

# Rows of which a newer one of the same id is there: they are kept, and not shown.
superseded = Table(
    "superseded",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), ForeignKey("rows.number"), primary_key=True),
)

_INDEXES = (
    Index("rows_by_id", rows.c.row_id),
    Index("rows_by_dataset_device", rows.c.dataset, rows.c.device),
    Index("rows_by_model", rows.c.model),
    Index("rows_by_latency", rows.c.latency_p50_ms),
)


def is_current() -> ColumnElement[bool]:
    """Select the latest row of each id."""
    return rows.c.number.not_in(select(superseded.c.number))


def prepare(connection: Connection, migrate: bool) -> None:
    """Create or migrate the tables; raise InputError for a newer version's, and an older one's without `migrate`."""
    found = version_of(connection)
    if found > SCHEMA_VERSION:
        raise InputError(
            f"the leaderboard has schema version {found}, this version of tutelage knows {SCHEMA_VERSION}: "
            "use the newer tutelage that wrote it, or another --workspace"
        )
    if 0 < found < SCHEMA_VERSION and not migrate:
        raise InputError(
            f"the shared leaderboard has schema version {found}, this version of tutelage writes {SCHEMA_VERSION}: "
            "`tutelage leaderboard migrate` brings it up to date for everybody; older versions then cannot open it"
        )
    for version in range(found + 1, SCHEMA_VERSION + 1):
        _STEPS[version](connection)
        connection.execute(insert(versions).values(version=version, applied=utc_now()))


def version_of(connection: Connection) -> int:
    """Read the schema version: 0 for an empty database; raise InputError for somebody else's."""
    names = set(inspect(connection).get_table_names())
    if "schema_version" in names:
        return int(connection.execute(select(func.max(versions.c.version))).scalar() or 0)
    if names & {"rows", "measurements"}:
        raise InputError("the database holds tables of another program (no schema_version): name another file or URL")
    return 0


def _tables(connection: Connection) -> None:
    for table in (versions, measurements, rows, superseded):
        table.create(connection, checkfirst=True)
        for index in list(table.indexes):
            index.drop(connection, checkfirst=True)  # they belong to version 2


def gains_of(details: Mapping[str, Any]) -> dict[str, float | None]:
    """Read the `gain_...` columns from a row's details."""
    return {name: columns.COLUMNS.builtin[name].read(details) for name in GAINS}


def _append_only(connection: Connection) -> None:
    for index in _INDEXES:
        index.create(connection, checkfirst=True)
    _forbid_changes(connection, ("rows", "measurements"))


def _gain_columns(connection: Connection) -> None:
    """Add the `gain_...` columns and fill them; the triggers step aside for this one write transaction."""
    there = {column["name"] for column in inspect(connection).get_columns("rows")}
    for name in GAINS:
        if name not in there:
            kind = rows.c[name].type.compile(connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE rows ADD COLUMN {name} {kind}")
    gained = select(rows.c.row_id, rows.c.details).where(rows.c.details.contains('"gain_over_twin"'))
    changes = [{"of_row": row_id, **gains_of(json.loads(text))} for row_id, text in connection.execute(gained)]
    if changes:
        _allow_changes(connection)
        change = (
            update(rows).where(rows.c.row_id == bindparam("of_row")).values({name: bindparam(name) for name in GAINS})
        )
        connection.execute(change, changes)
        _forbid_changes(connection, ("rows",))


def _states_of_rows(connection: Connection) -> None:
    """Let an id stand in several rows, and keep beside them which are superseded."""
    if "state" not in {column["name"] for column in inspect(connection).get_columns("rows")}:
        connection.exec_driver_sql("ALTER TABLE rows ADD COLUMN state VARCHAR(16)")
    if connection.dialect.name == "postgresql":
        for unique in inspect(connection).get_unique_constraints("rows"):
            connection.exec_driver_sql(f'ALTER TABLE rows DROP CONSTRAINT "{unique["name"]}"')
    elif any(origin == "u" for *_, origin, _ in connection.exec_driver_sql("PRAGMA index_list(rows)")):
        _rebuild_rows(connection)
    for index in _INDEXES:
        index.create(connection, checkfirst=True)
    superseded.create(connection, checkfirst=True)
    _forbid_changes(connection, ("rows", "superseded"))


def _rebuild_rows(connection: Connection) -> None:
    """Copy the rows into a table of today's form: SQLite cannot drop a constraint. Triggers go with the old table."""
    aside = MetaData()
    measurements.to_metadata(aside)
    new = rows.to_metadata(aside, name="rows_new")
    connection.execute(CreateTable(new))
    there = {column["name"] for column in inspect(connection).get_columns("rows")}
    names = [column.name for column in rows.c if column.name in there]  # later versions add columns afterwards
    connection.execute(insert(new).from_select(names, select(*(rows.c[name] for name in names))))
    connection.exec_driver_sql("DROP TABLE rows")
    connection.exec_driver_sql("ALTER TABLE rows_new RENAME TO rows")


def _allow_changes(connection: Connection) -> None:
    on = " ON rows" if connection.dialect.name == "postgresql" else ""
    names = ("rows_append_only",) if on else ("rows_no_update", "rows_no_delete")
    for name in names:
        connection.exec_driver_sql(f"DROP TRIGGER {name}{on}")


def _forbid_changes(connection: Connection, tables: Sequence[str]) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "CREATE OR REPLACE FUNCTION leaderboard_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the leaderboard is append-only'; END $$"
        )
        for table in tables:
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_append_only ON {table}")
            connection.exec_driver_sql(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION leaderboard_append_only()"
            )
        return
    for table in tables:
        for act in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER IF NOT EXISTS {table}_no_{act.lower()} BEFORE {act} ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'the leaderboard is append-only'); END"
            )


_STEPS: dict[int, Callable[[Connection], None]] = {
    1: _tables,
    2: _append_only,
    3: _gain_columns,
    4: _states_of_rows,
    5: _gain_columns,  # `gain_margin`
}
