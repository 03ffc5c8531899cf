"""Add columns to the append-only table of the rows, fill them, and file what older rows lack."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table, bindparam, column, insert, inspect, select, table, update

from . import schema
from .schema import forbid_changes
from .superseding import chunks

# Rows whose details are held at once.
_PART = 1_000


def add_columns(columns: Sequence[Column[Any]]) -> None:
    """Add columns to the rows, before the details: SQLite reads what stands after a long text by walking through it.

    There the table is copied, and what refers to it is set aside meanwhile.
    """
    from alembic import op

    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        for one in columns:
            op.add_column("rows", one)
        return
    names = [one["name"] for one in inspect(connection).get_columns("rows") if one["name"] != "details"]
    with rebuilt(connection, (*names, *(one.name for one in columns), "details")) as batch:
        for one in columns:
            batch.add_column(one)


@contextmanager
def rebuilt(connection: Connection, order: Sequence[str] = ()) -> Iterator[Any]:
    """Copy SQLite's table of the rows with the changes that the block makes; what refers to it is set aside meanwhile.

    order: of the columns, where it changes.
    """
    from alembic import op

    superseded = Table("superseded", MetaData(), autoload_with=connection)
    said = [dict(row) for row in connection.execute(select(superseded)).mappings()]
    superseded.drop(connection)
    with op.batch_alter_table("rows", recreate="always", partial_reordering=[tuple(order)] if order else []) as batch:
        yield batch
    superseded.create(connection)
    if said:
        connection.execute(insert(superseded), said)
    forbid_changes(connection, ("rows", "superseded"))


def fill(
    connection: Connection,
    names: Sequence[str],
    values: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    word: str = "",
    reads: Sequence[str] = (),
) -> None:
    """Set columns of the rows to what `values` gives for `details`, `body` (the measurement's, or {}) and `reads`.

    word: only rows whose details hold it are read.
    """
    rows = table("rows", *(column(name) for name in ("number", "details", "measurement", *names, *reads)))
    measurements = table("measurements", column("id"), column("body"))
    joined = rows.outerjoin(measurements, rows.c.measurement == measurements.c.id)
    also = [rows.c[name] for name in reads]
    query = select(rows.c.number, rows.c.details, measurements.c.body, *also).select_from(joined)
    query = query.order_by(rows.c.number)
    if word:
        query = query.where(rows.c.details.contains(word))
    last = -1
    while part := connection.execute(query.where(rows.c.number > last).limit(_PART)).all():
        last = part[-1][0]
        changes = []
        for number, details, body, *others in part:
            read = dict(zip(reads, others, strict=True))
            said = values({**read, "details": json.loads(details), "body": json.loads(body) if body else {}})
            changes.append({"of": number, **{name: said[name] for name in names}})
        rewrite(connection, names, changes)


def rewrite(
    connection: Connection, names: Sequence[str], changes: Sequence[Mapping[str, Any]], where: str = "rows"
) -> None:
    """Set columns of the rows whose numbers are `of`, in the table of the rows or, `where`, of their details.

    The triggers step aside for it, in this write transaction.
    """
    changed = table(where, *(column(name) for name in ("number", *names)))
    change = update(changed).where(changed.c.number == bindparam("of"))
    with changeable(connection, where):
        connection.execute(change.values({name: bindparam(name) for name in names}), changes)


def extend_details(connection: Connection, more: Mapping[str, Mapping[str, Any]]) -> None:
    """Add names to the details of rows, by id, in the last state of each; what a row says already stays as it is.

    Only for what no column of the table repeats.
    """
    rows, details = schema.rows, schema.details
    query = select(rows.c.row_id, rows.c.number, details.c.body).join_from(
        rows, details, rows.c.number == details.c.number
    )
    changes = [
        {"of": number, "body": json.dumps({**more[row_id], **json.loads(body)}, ensure_ascii=False, default=str)}
        for some in chunks(list(more))
        for row_id, number, body in connection.execute(query.where(rows.c.row_id.in_(some), schema.is_last_state()))
    ]
    if changes:
        rewrite(connection, ("body",), changes, "details")


@contextmanager
def changeable(connection: Connection, name: str) -> Iterator[None]:
    """Let an append-only table be changed in the block."""
    on = f" ON {name}" if connection.dialect.name == "postgresql" else ""
    for trigger in (f"{name}_append_only",) if on else (f"{name}_no_update", f"{name}_no_delete"):
        connection.exec_driver_sql(f"DROP TRIGGER {trigger}{on}")
    yield
    forbid_changes(connection, (name,))
