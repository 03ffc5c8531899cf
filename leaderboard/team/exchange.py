"""Copy rows between boards by way of files, in a folder or a data set of the Hugging Face hub (`push`, `pull`).

A push adds files that are named by their content, `rows/HASH.jsonl`, and changes none, so pushes of several people do
not collide. Rows keep their ids and stay what they were: this is for the boards of one team, `import` for others'.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from tutelage.leaderboard.columns import COLUMNS
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.store.details import check_details
from tutelage.leaderboard.store.superseding import chunks
from tutelage.leaderboard.store.values import one_line
from tutelage.records import STATES, InputError, Measurement, Row, parsed_json, utc_now

from .targets import Target

ROWS = "rows"
_ID = re.compile(r"[0-9a-f]{16}")
# A row with its details and the samples of its measurement; what is longer is no row.
_MOST_LINE = 16_000_000
# What two rows of one id and state must agree in.
_FIGURES = tuple(name for name, one in COLUMNS.builtin.items() if one.is_number and name in Row.model_fields)


@dataclass
class Exchanged:
    """What a push or a pull did: rows copied and retractions, rows that both had, and conflicts in words."""

    copied: int = 0
    retracted: int = 0
    same: int = 0
    conflicts: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)  # those that were copied


@dataclass(frozen=True)
class _Filed:
    """A row of a target: the row, its samples, and what was said of it last."""

    row: Row
    samples: str
    retracted: str
    pushed: str


def push(store: Store, filter: str | None, target: Target) -> Exchanged:
    """Add the current rows of a store that a filter keeps to a target, and what it does not know of retractions.

    A row whose id is there with other figures is a conflict, and is left as it is on both.
    """
    there = _latest(target)
    done = Exchanged()
    lines = []
    for row in store.rows(filter):
        known = there.get(row.key)
        if known is None or _rank(row) > _rank(known.row):
            lines.append(_line(row, _samples(store, row), ""))
            done.rows.append(row)
        elif (conflict := _conflict(row, known.row, f"in {target.name}")) and _rank(row) == _rank(known.row):
            done.conflicts.append(conflict)
        else:
            done.same += 1
    done.copied = len(lines)
    standing = [row_id for row_id, known in there.items() if not known.retracted]
    said = store.columns(names=("row_id", "retracted"), ids=standing, every=True)
    for row_id, reason in zip(said["row_id"], said["retracted"], strict=True):
        if reason:
            lines.append(_line(there[row_id].row, there[row_id].samples, reason))
            done.retracted += 1
    if lines:
        content = "".join(lines).encode()
        name = f"{ROWS}/{hashlib.sha256(content).hexdigest()[:16]}.jsonl"
        target.add({name: content}, f"{done.copied} rows, {done.retracted} retractions")
    return done


def pull(store: Store, target: Target) -> Exchanged:
    """Add the rows of a target to a store, under their ids, and the retractions of rows that stand here.

    A row that is here as far stays; one with other figures is a conflict, and is left as it is on both.
    Raises InputError for a target that was never pushed to.
    """
    if not _files(target):
        raise InputError(
            f"{target.name} holds no rows ({ROWS}/*.jsonl): name a folder or data set that `leaderboard push` wrote"
        )
    there = _latest(target)
    done = Exchanged()
    here: dict[str, Row] = {}
    for ids in chunks(sorted(there)):
        here |= {row.key: row for row in store.rows(ids=ids, every=True)}
    for row_id, known in there.items():
        mine = here.get(row_id)
        if mine is None or _rank(known.row) > _rank(mine):
            done.rows.append(known.row)
        elif (conflict := _conflict(mine, known.row, f"in {target.name}")) and _rank(mine) == _rank(known.row):
            done.conflicts.append(conflict)
        else:
            done.same += 1
    for some in chunks(done.rows):
        texts = {there[row.key].samples for row in some} - {""}
        done.copied += store.add(some, [Measurement.model_validate_json(text) for text in sorted(texts)])
    for row_id, known in there.items():
        if known.retracted and not store.former(row_id)["retracted"]:
            store.retract(row_id, known.retracted)
            done.retracted += 1
    return done


def _latest(target: Target) -> dict[str, _Filed]:
    """Read every row of a target by id, in its last state, with the last word on whether it is retracted."""
    found: dict[str, _Filed] = {}
    for one in _read(target):
        known = found.get(one.row.key)
        if known is None:
            found[one.row.key] = one
            continue
        further = one if _rank(one.row) > _rank(known.row) else known
        last = max(known, one, key=lambda each: (each.pushed, bool(each.retracted)))
        found[one.row.key] = _Filed(further.row, further.samples, last.retracted, last.pushed)
    return found


def _files(target: Target) -> list[str]:
    return [name for name in sorted(target.names()) if name.startswith(f"{ROWS}/") and name.endswith(".jsonl")]


def _read(target: Target) -> Iterator[_Filed]:
    for name in _files(target):
        for number, line in enumerate(target.lines(name), 1):
            where = f"{target.name}/{name}, line {number}"
            if len(line) > _MOST_LINE:
                raise InputError(f"{where} has {len(line):,} characters: it is no row")
            if line.strip():
                yield _of_line(line, where)


def _line(row: Row, samples: str, retracted: str) -> str:
    """Write a row on one line of JSON; architecture and details are text, so that all rows have the same columns."""
    values = row.to_dict()
    values["arch"] = json.dumps(values["arch"]) if values.get("arch") else ""
    values["details"] = json.dumps(row.details, ensure_ascii=False, default=str)
    said = {"row_id": row.key, **values, "samples": samples, "retracted": retracted, "pushed": utc_now()}
    return json.dumps(said, ensure_ascii=False, allow_nan=False) + "\n"


def _of_line(line: str, where: str) -> _Filed:
    """Read such a line; raises InputError that names the field that cannot be used."""
    try:
        values = parsed_json(line)
        said = ("row_id", "samples", "retracted", "pushed")
        row_id, samples, retracted, pushed = (str(values.pop(name)) for name in said)
        values["arch"] = parsed_json(values["arch"]) if values["arch"] else None
        values["details"] = parsed_json(values["details"])
        if not _ID.fullmatch(row_id):
            raise InputError(f"{where}: row_id is {row_id[:40]!r}: it is no id of a row")
        check_details(values["details"], where)
        row = Row.model_validate(values)
        if samples and (found := Measurement.model_validate_json(samples).id) != row.measurement:
            raise InputError(f"{where}: its samples are of measurement {found}, and it names {row.measurement!r}")
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{where}: {'.'.join(map(str, first['loc'])) or 'row'}: {first['msg']}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{where} is no row that `leaderboard push` writes ({type(error).__name__}: {error})"
        ) from None
    if row.measurement and not samples:
        row = row.model_copy(update={"measurement": ""})  # who pushed it had none
    return _Filed(row.filed_as(row_id), samples, one_line(retracted) if retracted else "", pushed)


def _samples(store: Store, row: Row) -> str:
    return store.measurement(row.measurement).model_dump_json() if row.measurement else ""


def _rank(row: Row) -> int:
    """Say how far a row is; one of no run is as far as it gets."""
    state = row.details.get("state")
    return STATES.index(state) if state in STATES else len(STATES)


def _conflict(mine: Row, other: Row, where: str) -> str:
    """Name the first figure in which two rows of one id differ; empty where they agree."""
    for name in _FIGURES:
        a, b = getattr(mine, name), getattr(other, name)
        if a != b:
            return f"row {mine.key[:8]} ({mine.model}): {name} is {a} here and {b} {where}: both were left as they are"
    return ""
