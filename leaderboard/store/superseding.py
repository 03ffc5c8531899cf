"""Insert rows (`insert_rows`), and say which rows of before they supersede.

Of one id a later state supersedes the earlier. Of one thing (`Row.identity`) a later run supersedes an earlier one when
it is as far; until then both are shown. Every earlier row is recorded, so that where the later run is retracted the one
before it is current again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, func, insert, select

from tutelage.records import STATES

from . import schema

# Ids looked up in one statement: SQLite takes at most 32,766 values.
CHUNK = 500

Values = Mapping[Any, Any]
_T = TypeVar("_T")


def insert_rows(connection: Connection, values: Sequence[Values], vague: Mapping[str, str]) -> int:
    """Insert rows that are not there, or not as far, and count them; what they supersede stays in the table.

    vague: what the identity of a row would be if its power state were not known, by its identity, see `supersede`.
    """
    latest: dict[str, Values] = {}
    for value in values:
        if value["row_id"] not in latest or _is_news(value, latest[value["row_id"]]):
            latest[value["row_id"]] = value
    num_added = 0
    for ids in chunks(list(latest)):
        numbers = _last_states(connection, ids)
        stated = [row_id for row_id in numbers if latest[row_id]["state"] is not None]
        newer = _newer(connection, {row_id: latest[row_id] for row_id in stated}, numbers)
        if newer:
            pairs = [{"number": numbers[row_id], "by_id": row_id} for row_id in newer]
            connection.execute(insert(schema.superseded), pairs)
        chosen = [latest[row_id] for row_id in ids if row_id not in numbers or row_id in newer]
        if chosen:
            _insert(connection, chosen)
            supersede(connection, {value["identity"] for value in chosen} - {None}, vague)
        num_added += len(chosen)
    return num_added


def _insert(connection: Connection, values: Sequence[Values]) -> None:
    """Insert rows of different ids, and their details under the numbers that they were given."""
    table = schema.rows
    connection.execute(insert(table), [{name: one for name, one in row.items() if name != "details"} for row in values])
    said = {row["row_id"]: row["details"] for row in values if row["details"] != schema.NO_DETAILS}
    for ids in chunks(list(said)):
        newest = (
            select(table.c.row_id, func.max(table.c.number)).where(table.c.row_id.in_(ids)).group_by(table.c.row_id)
        )
        bodies = [{"number": number, "body": said[row_id]} for row_id, number in connection.execute(newest)]
        connection.execute(insert(schema.details), bodies)


def insert_missing(connection: Connection, table: Table, values: Sequence[Mapping[str, Any]], key: str) -> int:
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


def chunks(ids: Sequence[_T]) -> list[Sequence[_T]]:
    """Part ids into what one statement takes."""
    return [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]


def _last_states(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    table = schema.rows
    named = select(table.c.number, table.c.row_id).where(table.c.row_id.in_(ids), schema.is_last_state())
    return {row_id: number for number, row_id in connection.execute(named)}


def _newer(connection: Connection, latest: Mapping[str, Values], numbers: Mapping[str, int]) -> set[str]:
    """Give the ids whose row says more than the one that is there, or was run again after another superseded it."""
    if not latest:
        return set()
    table = schema.rows
    places = [numbers[row_id] for row_id in latest]
    said = select(table, schema.details_text().label("details"))
    there = connection.execute(said.where(table.c.number.in_(places))).mappings().all()
    by = schema.superseded
    hidden = set(connection.execute(select(by.c.number).where(by.c.number.in_(places))).scalars())
    newer = set()
    for old in there:
        new = latest[old["row_id"]]
        if _is_news(new, old) or (old["number"] in hidden and _is_as_far(new["state"], old["state"])):
            newer.add(str(old["row_id"]))
    return newer


def _is_news(new: Values, old: Values) -> bool:
    """Say whether a row of the same id is as far as the other, or further, and says something else."""
    if new["state"] is None or old["state"] is None:
        return False  # the id is the hash of all that the row says
    differs = any(value != old[name] for name, value in new.items() if name != "created")
    return differs and _is_as_far(new["state"], old["state"])


def _is_as_far(state: str, other: str) -> bool:
    return STATES.index(state) >= STATES.index(other)


def supersede(connection: Connection, identities: Iterable[str], vague: Mapping[str, str]) -> None:
    """Say of each row of some things which later runs are as far as it is.

    Rows of older versions, and those that are not measured yet, do not know their power state: a later run that does
    supersedes them. vague: their identity, by that of the later run.
    """
    table, by = schema.rows, schema.superseded
    names = (table.c.identity, table.c.created, table.c.number, table.c.row_id, table.c.state)
    for some in chunks(sorted(identities)):
        wanted = sorted({*some, *(vague[one] for one in some if one in vague)})
        things: dict[str, list[Any]] = {one: [] for one in wanted}
        for part in chunks(wanted):
            for row in connection.execute(select(*names).where(table.c.identity.in_(part))):
                things[row.identity].append(row)
        known = {row.number for one in some for row in things[one]}
        pairs: set[tuple[int, str]] = set()
        for one in some:
            pairs |= set(_pairs(things[one]))
            if one in vague:
                both = _pairs([*things[vague[one]], *things[one]])
                knows = {row.row_id for row in things[one]}
                pairs |= {(number, by_id) for number, by_id in both if number not in known and by_id in knows}
        for numbers in chunks(sorted({number for number, _ in pairs})):
            said = connection.execute(select(by.c.number, by.c.by_id).where(by.c.number.in_(numbers)))
            pairs -= {(number, by_id) for number, by_id in said}
        if pairs:
            connection.execute(insert(by), [{"number": number, "by_id": by_id} for number, by_id in sorted(pairs)])


def _pairs(thing: Sequence[Any]) -> Iterator[tuple[int, str]]:
    """Yield the number of an earlier row and the id of a later run that supersedes it."""
    ordered = sorted(thing, key=lambda row: (row.created, row.number))
    for earlier, later in combinations(ordered, 2):
        if earlier.row_id != later.row_id and _is_as_far(later.state, earlier.state):
            yield earlier.number, later.row_id
