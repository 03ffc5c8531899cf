"""A row as the columns of its table and its details (`row_values`), and back (`to_row`); rows a part at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Select

from tutelage.leaderboard.columns import HELD, HELD_TEXTS
from tutelage.records import STATES, InputError, Measurement, Row

from . import schema

# Characters of details that are held at once, and twice or three times as much where they are parsed and written.
_MOST_HELD = 8_000_000
# Characters of the reason of a retraction.
MOST_REASON = 500

# Columns that repeat what the details say, what the store adds, and the order in which rows came.
_NOT_OF_A_ROW = ("number", "row_id", "state", "comparable", "identity", "rank_key", *HELD, *HELD_TEXTS)


def row_values(row: Row) -> dict[str, Any]:
    """Give a row as the columns of its table, and its details; raise InputError for what no database can hold."""
    values = {column.name: getattr(row, column.name, None) for column in schema.rows.c if column.name != "number"}
    quality = row.accuracy if row.auc is None else row.auc
    values |= {"comparable": row.comparable, "identity": row.identity or None}
    values["rank_key"] = None if quality is None else -quality
    values["arch"] = None if row.arch is None else json.dumps(row.arch.to_dict())
    values["measurement"] = row.measurement or None
    values["details"] = json.dumps(row.details, ensure_ascii=False, default=str)
    values["state"] = row.details.get("state") if row.details.get("state") in STATES else None
    for name, value in values.items():
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise InputError(f"row {row.model!r}: {name} is {value}: a count has at most 63 bits")
        if isinstance(value, str) and not _is_text(value):
            raise InputError(f"row {row.model!r}: {name} holds a character that is no text (NUL, half a surrogate)")
    return values | {"row_id": row.key} | schema.held_of(row.details)


def streamed(
    connection: Connection, queries: Iterable[Select[Any]], most: int, fetched: int, text: int | None
) -> Iterator[list[Any]]:
    """Yield rows of queries some at a time: `fetched` by `fetched`, until there are `most`, or much text of details.

    text: the place of the details in a row; None where they are not read.
    """
    streaming = connection.execution_options(stream_results=True, yield_per=fetched)
    held: list[Any] = []
    length = 0
    for rows in (part for query in queries for part in streaming.execute(query).partitions(fetched)):
        held += rows
        length += 0 if text is None else sum(len(row[text]) for row in rows)
        if len(held) >= most or length >= _MOST_HELD:
            yield held
            held, length = [], 0
    if held:
        yield held


def _is_text(text: str) -> bool:
    """Say whether a database of ours can hold a text: no NUL, no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def to_row(found: Mapping[Any, Any]) -> Row:
    """Give the row that columns of the table hold, with its id."""
    values = {name: value for name, value in found.items() if name not in _NOT_OF_A_ROW}
    values["arch"] = None if values["arch"] is None else json.loads(values["arch"])
    values["measurement"] = values["measurement"] or ""
    values["details"] = json.loads(values["details"])
    return Row.model_validate(values).filed_as(found["row_id"])


def measurement_values(measurement: Measurement) -> dict[str, Any]:
    """Give a measurement as the columns of its table."""
    body = measurement.model_dump_json()
    return {"id": measurement.id, "device": measurement.device, "runtime": measurement.runtime, "body": body}


def one_line(reason: str) -> str:
    """Give a reason as tables and messages write it: one line, whose blanks are single; InputError for another."""
    reason = " ".join(reason.split())
    if not reason:
        raise InputError(f"the reason {reason!r} says nothing: write why nobody should use the row")
    if len(reason) > MOST_REASON or not reason.isprintable():
        shown = f"{reason[:60]!r}{'...' * (len(reason) > 60)}"
        raise InputError(f"the reason {shown} is not one line: write at most {MOST_REASON} printable characters")
    return reason
