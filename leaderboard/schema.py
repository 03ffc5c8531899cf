"""The tables of the store and how an older store becomes a current one.

Enters: a connection inside a write transaction. Leaves: the tables of `SCHEMA_VERSION`, append-only by trigger.
Version 1 had the tables alone; version 2 forbids UPDATE and DELETE and indexes what filters ask for.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    func,
    insert,
    inspect,
    select,
)

from tutelage.records import InputError, utc_now

SCHEMA_VERSION = 2

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

# Figures are columns of their own so that filters run in the database; `arch` and `details` are JSON text.
# BigInteger: a teacher's MACs pass 2^31. `number` keeps the order in which rows came in.
rows = Table(
    "rows",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("row_id", String(32), nullable=False, unique=True),
    *(Column(name, Text, nullable=False) for name in ("model", "role")),
    Column("arch", Text),
    *(
        Column(name, Text, nullable=False)
        for name in ("teacher", "recipe", "dataset", "split", "scheme", "runtime", "device")
    ),
    *(Column(name, BigInteger) for name in ("batch", "threads")),
    *(Column(name, Double) for name in ("accuracy", "accuracy_lo", "accuracy_hi", "auc", "auc_lo", "auc_hi")),
    *(Column(name, BigInteger) for name in ("params", "macs", "size_bytes")),
    *(Column(name, Double) for name in ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms")),
    Column("peak_rss_bytes", BigInteger),
    Column("energy_mj", Double),
    Column("seed", BigInteger, nullable=False),
    *(Column(name, Text, nullable=False) for name in ("created", "source")),
    Column("measurement", String(32), ForeignKey("measurements.id")),  # NULL: no raw samples
    *(Column(name, Text, nullable=False) for name in ("twin", "parent", "details")),
)

_INDEXES = (
    Index("rows_by_dataset_device", rows.c.dataset, rows.c.device),
    Index("rows_by_model", rows.c.model),
    Index("rows_by_latency", rows.c.latency_p50_ms),
)


def prepare(connection: Connection) -> None:
    """Create or migrate the tables; raise InputError for a store that a newer version wrote."""
    found = version_of(connection)
    if found > SCHEMA_VERSION:
        raise InputError(
            f"the leaderboard has schema version {found}, this version of tutelage knows {SCHEMA_VERSION}: "
            "use the newer tutelage that wrote it, or another --workspace"
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
    for table in (versions, measurements, rows):
        table.create(connection, checkfirst=True)
        for index in list(table.indexes):
            index.drop(connection, checkfirst=True)  # they belong to version 2


def _append_only(connection: Connection) -> None:
    for index in _INDEXES:
        index.create(connection, checkfirst=True)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "CREATE OR REPLACE FUNCTION leaderboard_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the leaderboard is append-only'; END $$"
        )
        for table in ("rows", "measurements"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION leaderboard_append_only()"
            )
        return
    for table in ("rows", "measurements"):
        for act in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER {table}_no_{act.lower()} BEFORE {act} ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'the leaderboard is append-only'); END"
            )


_STEPS: dict[int, Callable[[Connection], None]] = {1: _tables, 2: _append_only}
