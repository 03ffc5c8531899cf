"""Fill columns of rows that are there (`fill`): what a migration may do to an append-only table, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, column, select, table, update

from .schema import forbid_changes

# Rows whose details are held at once.
_PART = 1_000


def fill(
    connection: Connection,
    names: Sequence[str],
    values: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    word: str = "",
) -> None:
    """Set columns of the rows to what `values` gives for `details` and `body` (the measurement's record, or {}).

    word: only rows whose details hold it are read. The triggers step aside for this one write transaction.
    """
    rows = table("rows", *(column(name) for name in ("number", "details", "measurement", *names)))
    measurements = table("measurements", column("id"), column("body"))
    joined = rows.outerjoin(measurements, rows.c.measurement == measurements.c.id)
    query = select(rows.c.number, rows.c.details, measurements.c.body).select_from(joined).order_by(rows.c.number)
    if word:
        query = query.where(rows.c.details.contains(word))
    change = update(rows).where(rows.c.number == bindparam("of")).values({name: bindparam(name) for name in names})
    _allow_changes(connection)
    last = -1
    while part := connection.execute(query.where(rows.c.number > last).limit(_PART)).all():
        last = part[-1][0]
        changes = []
        for number, details, body in part:
            said = values({"details": json.loads(details), "body": json.loads(body) if body else {}})
            changes.append({"of": number, **{name: said[name] for name in names}})
        connection.execute(change, changes)
    forbid_changes(connection, ("rows",))


def _allow_changes(connection: Connection) -> None:
    on = " ON rows" if connection.dialect.name == "postgresql" else ""
    for name in ("rows_append_only",) if on else ("rows_no_update", "rows_no_delete"):
        connection.exec_driver_sql(f"DROP TRIGGER {name}{on}")
