"""The tables of the store, as `metadata`, and which rows are current.

`rows` is append-only, by trigger, and holds the figures; the long text of a row's details has a table of its own, so
that a pass over a million rows reads none of it. What a later row, or a person, says of an earlier one stands in
`superseded` and `retractions`. `migrating.prepare` makes the tables or brings older ones up to date. A column that
stands in the details needs no migration: it is read there (`leaderboard/details.py`), in stores of any age.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    exists,
    false,
    func,
    literal,
    select,
)

from tutelage.leaderboard import columns
from tutelage.leaderboard.clauses import by_bytes
from tutelage.leaderboard.columns import HELD, HELD_TEXTS
from tutelage.records import ID_DIGITS, Row

# The newest revision in `migrations/versions`.
SCHEMA_VERSION = 11

metadata = MetaData()
# Counted upwards; SQLite counts by itself only what is exactly an INTEGER PRIMARY KEY.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

# What every version of this package reads first, those before Alembic as well; Alembic's own table says the same.
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

# Columns that came after others had rows.
_LATER = ("manifest", "runtime_version", "processor", "precision", "power_state")


def _table_column(one: columns.Column) -> Column[Any]:
    """Give a field of the rows as a column of the table; BigInteger, since a teacher's MACs pass 2^31."""
    if one.name == "measurement":
        return Column(one.name, String(32), ForeignKey("measurements.id"))  # NULL: no raw samples
    if not one.is_number:
        return Column(one.name, Text, nullable=one.name == "arch", server_default="" if one.name in _LATER else None)
    return Column(one.name, BigInteger if one.is_whole else Double, nullable=one.name != "seed")


# Figures are columns of their own so that filters run in the database; `arch` is JSON text. `number` keeps the order in
# which rows came in.
_FIELDS = tuple(one for one in columns.BUILTIN if one.name in Row.model_fields and one.name != "details")
rows = Table(
    "rows",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("row_id", String(32), nullable=False),
    *(_table_column(one) for one in _FIELDS),
    *(Column(name, Double) for name in HELD),
    *(Column(name, Text, nullable=False, server_default="") for name in HELD_TEXTS),
    Column("state", String(16)),  # how far the row of a run is (`records.STATES`); NULL: not of a run, or of version 3
    Column("comparable", String(32), nullable=False, server_default=""),  # `Row.comparable`
    Column("identity", String(32)),  # `Row.identity`; NULL: nothing supersedes it but a later state of itself
    Column("rank_key", Double),  # by which tables sort a group: AUC, else accuracy, negated; NULL: it has neither
)

# The rest of what a row says, as JSON text; a row that says nothing more has none.
details = Table(
    "details",
    metadata,
    Column("number", _NUMBER, ForeignKey("rows.number"), primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
)
NO_DETAILS = "{}"

# Rows of which a later state, or a later run of the same thing (the row `by_id`), is there.
superseded = Table(
    "superseded",
    metadata,
    Column("number", _NUMBER, ForeignKey("rows.number"), primary_key=True, autoincrement=False),
    Column("by_id", String(32), primary_key=True),
)

# What people said of rows, by id; the last word on a row counts. No reason: the row stands again.
retractions = Table(
    "retractions",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("row_id", String(32), nullable=False),
    Column("reason", Text),
    Column("created", String(32), nullable=False),
)

# What people tagged rows with, by id; the last word on a row and a tag counts.
tags = Table(
    "tags",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("row_id", String(32), nullable=False),
    Column("tag", String(40), nullable=False),
    Column("is_set", Boolean, nullable=False),
    Column("by", Text, nullable=False),
    Column("created", String(32), nullable=False),
)

FRONT = ("auc", "accuracy", "latency_p50_ms", "size_bytes")
_BESIDE = ("auc", "accuracy", "size_bytes")
SORTED = {
    **{"latency": "latency_p50_ms", "auc": "auc", "accuracy": "accuracy"},
    **{"size": "size_bytes", "params": "params", "macs": "macs"},
}
INDEXES = (
    Index("rows_by_id", rows.c.row_id),
    Index("rows_by_dataset_device", rows.c.dataset, rows.c.device),
    Index("rows_by_model", rows.c.model),
    # By what tables are sorted across groups.
    *(Index(f"rows_by_{short}", rows.c[name]) for short, name in SORTED.items()),
    Index("rows_by_identity", rows.c.identity),
    # A group in the order of its table.
    Index("rows_by_rank", rows.c.comparable, rows.c.rank_key, rows.c.number),
    # What the default front of a group is computed from, and the usual filters test, without reading a row.
    Index("rows_by_front", *(rows.c[name] for name in ("comparable", *FRONT, "role", "scheme"))),
    # The rows of a group that are as fast as one of it; with less in it SQLite reads `rows_by_front` instead.
    Index("rows_by_group_latency", *(rows.c[name] for name in ("comparable", "latency_p50_ms", *_BESIDE))),
    Index("rows_by_state", rows.c.state),
    Index("retractions_by_id", retractions.c.row_id),
    Index("rows_by_project", rows.c.project),
    Index("rows_by_user", rows.c.user),
    Index("tags_by_id", tags.c.row_id),
    Index("tags_by_tag", tags.c.tag),
)
APPEND_ONLY = ("rows", "details", "measurements", "superseded", "retractions", "tags")


@cache
def details_text() -> ColumnElement[Any]:
    """Give the details of a row as JSON text."""
    body = select(details.c.body).where(details.c.number == rows.c.number).correlate(rows).scalar_subquery()
    return func.coalesce(body, literal(NO_DETAILS, Text()))


@cache
def first_of_groups() -> Select[Any]:
    """Select the number of any one row of each group, by stepping through the index: a group costs one look-up."""
    key = rows.c.comparable
    steps = select(func.min(key).label("key")).select_from(rows).cte("steps", recursive=True)
    later = select(func.min(key)).where(key > steps.c.key).scalar_subquery()
    steps = steps.union_all(select(later).where(steps.c.key.is_not(None)))
    first = select(rows.c.number).where(key == steps.c.key).limit(1).scalar_subquery()
    return select(first).where(steps.c.key.is_not(None))


def has_id(beginning: str) -> ColumnElement[bool]:
    """Select the rows whose id begins so, in either case, by the index: the digits of ids sort alike everywhere."""
    digits = beginning.lower()
    if re.fullmatch(rf"[0-9a-f]{{1,{ID_DIGITS}}}", digits) is None:
        return false()
    return rows.c.row_id.between(digits, digits.ljust(ID_DIGITS, "f"))


@cache
def retracted_ids() -> Select[Any]:
    """Select the ids of the rows that are retracted."""
    last = select(func.max(retractions.c.number)).group_by(retractions.c.row_id)
    return select(retractions.c.row_id).where(retractions.c.number.in_(last), retractions.c.reason.is_not(None))


@cache
def is_current() -> ColumnElement[bool]:
    """Select the latest row of each id and thing that was not retracted.

    Where a later run was retracted, the earlier one is current again. Both are looked up row by row: a page of rows
    must not read what superseded a million others.
    """
    return ~is_superseded() & rows.c.number.not_in(retracted_numbers())


@cache
def is_superseded() -> ColumnElement[bool]:
    """Select the rows that a later state or run, which stands, took the place of."""
    by = superseded
    later = exists().where(by.c.number == rows.c.number, by.c.by_id.not_in(retracted_ids()))
    return later.correlate(rows)


@cache
def is_last_state() -> ColumnElement[bool]:
    """Select the latest row of each id, superseded by others and retracted ones included."""
    by = superseded
    later = exists().where(by.c.number == rows.c.number, by.c.by_id == rows.c.row_id)
    return ~later.correlate(rows)


@cache
def retracted_numbers() -> Select[Any]:
    """Select the numbers of all states of the retracted rows; an index of figures has numbers, and no ids."""
    named = rows.alias("named")
    return select(named.c.number).where(named.c.row_id.in_(retracted_ids()))


def _superseded_by() -> ColumnElement[Any]:
    """Give the id of the latest run that took the place of a row, in whatever order they came in; '' where none did."""
    by = rows.alias("by")
    last = (
        select(by.c.row_id)
        .join_from(superseded, by, by.c.row_id == superseded.c.by_id)
        .where(superseded.c.number == rows.c.number, superseded.c.by_id != rows.c.row_id)
        .where(superseded.c.by_id.not_in(retracted_ids()))
        .order_by(by.c.created.desc(), by.c.number.desc())
        .limit(1)
        .correlate(rows)
        .scalar_subquery()
    )
    return func.coalesce(last, literal("", Text()))


def _retracted() -> ColumnElement[Any]:
    """Give the reason for which a row is retracted, '' where it is not."""
    last = (
        select(retractions.c.reason)
        .where(retractions.c.row_id == rows.c.row_id)
        .order_by(retractions.c.number.desc())
        .limit(1)
        .correlate(rows)
        .scalar_subquery()
    )
    return func.coalesce(last, literal("", Text()))


def _tags() -> ColumnElement[Any]:
    """Give the tags of a row, sorted and joined by blanks."""
    last = select(func.max(tags.c.number)).where(tags.c.row_id == rows.c.row_id).group_by(tags.c.tag).correlate(rows)
    standing = select(tags.c.tag).where(tags.c.number.in_(last), tags.c.is_set).order_by(by_bytes(tags.c.tag))
    joined = select(func.aggregate_strings(standing.subquery().c.tag, " ")).scalar_subquery()
    return func.coalesce(joined, literal("", Text()))


def _has_tag(tag: str) -> ColumnElement[bool]:
    """Select the rows that bear a tag; the few that ever did are looked up first."""
    last = select(func.max(tags.c.number)).where(tags.c.tag == tag).group_by(tags.c.row_id)
    return rows.c.row_id.in_(select(tags.c.row_id).where(tags.c.number.in_(last), tags.c.is_set))


# Columns of the leaderboard that other tables say; filters find them here, and how a list is asked for a word of it.
rows.info["expressions"] = {"superseded_by": _superseded_by, "retracted": _retracted, "tags": _tags}
rows.info["members"] = {"tags": _has_tag}
rows.info["details"] = details_text


def stored(one: columns.Column, every: bool) -> ColumnElement[Any]:
    """Give a column of the table, or what other tables say: of current rows nothing."""
    if one.name == "details":
        return details_text()
    if one.name in rows.info["expressions"]:
        is_said = every or one.name not in columns.OF_FORMER
        said: ColumnElement[Any] = rows.info["expressions"][one.name]() if is_said else literal("")
        return said
    return rows.c[one.name]


def held_of(details: Mapping[str, Any]) -> dict[str, Any]:
    """Read those columns from a row's details that the table holds as well."""
    return {name: columns.COLUMNS.builtin[name].read(details) for name in (*HELD, *HELD_TEXTS)}


def forbid_changes(connection: Connection, tables: Sequence[str] = APPEND_ONLY) -> None:
    """Make tables append-only, by trigger."""
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
