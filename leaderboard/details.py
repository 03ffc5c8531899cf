"""Columns that stand in the JSON text of a row's `details`, in Python and in SQL alike.

`read_details` gives them of many texts; `expression` gives the SQL of one, for filters. What a value is, `Column.read`
says for both: SQLite calls it (`add_functions`), and PostgreSQL does the same by its JSON operators.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Double, Table, Text, func, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from .column import MOST_DIGITS, Column

# Characters of the details of a row that says nothing there.
_EMPTY = 2
_NUMBER, _TEXT = "leaderboard_number", "leaderboard_text"


def read_details(texts: Iterable[str], wanted: Sequence[Column]) -> dict[str, list[Any]]:
    """Give columns of rows whose details are these texts.

    Details may hold pictures and there may be 100,000 of them: a text that does not name all keys of a wanted path is
    not parsed, and of one that is, the columns are read whose first key is there.
    """
    starts: dict[str, list[tuple[str, ...]]] = {}
    for first, *rest in {tuple(_written(key) for key in path) for one in wanted for path in one.paths}:
        starts.setdefault(first, []).append(tuple(rest))
    heads: dict[str, list[Column]] = {}
    for one in wanted:
        for head in dict.fromkeys(path[0] for path in one.paths):
            heads.setdefault(head, []).append(one)
    found: dict[str, dict[int, Any]] = {one.name: {} for one in wanted}
    size = 0
    for text in texts:
        if len(text) <= _EMPTY:
            size += 1
            continue
        named = [first for first in starts if first in text]
        if any(all(key in text for key in rest) for first in named for rest in starts[first]):
            details = json.loads(text)
            for head in details.keys() & heads.keys():
                for one in heads[head]:
                    found[one.name][size] = one.read(details)
        size += 1
    columns: dict[str, list[Any]] = {}
    for one in wanted:
        columns[one.name] = [one.read({})] * size
        for place, value in found[one.name].items():
            columns[one.name][place] = value
    return columns


def expression(table: Table, column: Column) -> ColumnElement[Any]:
    """Give the SQL of a column of the rows: of the table, said by another table, or out of the details.

    A number is NULL where it is absent, a text ''.
    """
    if column.name in table.c:
        return table.c[column.name]
    if column.name in table.info.get("expressions", {}):
        said: ColumnElement[Any] = table.info["expressions"][column.name]()
        return said
    kind = _TextAt if column.is_text else _NumberAt
    values: list[ColumnElement[Any]] = [kind(table.info["details"](), literal(place, Text())) for place in column.at]
    if column.is_text:
        values.append(literal("", Text()))
    value = values[0] if len(values) == 1 else func.coalesce(*values, type_=kind.type)  # SQLite's takes two or more
    return value.label(column.name)


def add_functions(connection: sqlite3.Connection) -> None:
    """Teach SQLite what `_NumberAt` and `_TextAt` call."""
    for name, kind in ((_NUMBER, "plain"), (_TEXT, "text")):
        connection.create_function(name, 2, _reader(kind), deterministic=True)


class _NumberAt(FunctionElement[float]):
    """The finite number at a path of the details, or NULL."""

    type = Double()
    inherit_cache = True


class _TextAt(FunctionElement[str]):
    """The text at a path of the details, or NULL."""

    type = Text()
    inherit_cache = True


@compiles(_NumberAt, "sqlite")
def _number_sqlite(element: _NumberAt, compiler: SQLCompiler, **options: Any) -> str:
    return f"{_NUMBER}({', '.join(compiler.process(part, **options) for part in element.clauses)})"


@compiles(_TextAt, "sqlite")
def _text_sqlite(element: _TextAt, compiler: SQLCompiler, **options: Any) -> str:
    return f"NULLIF({_TEXT}({', '.join(compiler.process(part, **options) for part in element.clauses)}), '')"


@compiles(_NumberAt, "postgresql")
def _number_postgresql(element: _NumberAt, compiler: SQLCompiler, **options: Any) -> str:
    value = _value_postgresql(element, compiler, options)
    text = f"({value} #>> '{{}}')"
    return (
        f"(CASE WHEN json_typeof({value}) = 'number' AND length({text}) <= {MOST_DIGITS} "
        f"THEN CAST({text} AS double precision) END)"
    )


@compiles(_TextAt, "postgresql")
def _text_postgresql(element: _TextAt, compiler: SQLCompiler, **options: Any) -> str:
    value = _value_postgresql(element, compiler, options)
    return f"(CASE WHEN json_typeof({value}) = 'string' THEN NULLIF({value} #>> '{{}}', '') END)"


def _value_postgresql(element: FunctionElement[Any], compiler: SQLCompiler, options: dict[str, Any]) -> str:
    """Give the JSON value at a path. NaN and infinity, which Python writes and JSON lacks, are read as null."""
    details, path = (compiler.process(part, **options) for part in element.clauses)
    plain = f"regexp_replace({details}, '([:,[] ?)-?(NaN|Infinity)(?=[],}}])', '\\1null', 'g')"
    return f"(CAST({plain} AS json) #> string_to_array({path}, '.'))"


def _reader(kind: Any) -> Any:
    def read(text: str, path: str) -> Any:
        one = _at(path, kind)
        return one.read(_parsed(text)) if _written(one.paths[0][-1]) in text else one.read({})

    return read


@lru_cache(maxsize=64)
def _at(path: str, kind: Any) -> Column:
    return Column(path, "", kind, at=(path,))


# Several columns of one row are read one after the other.
@lru_cache(maxsize=2)
def _parsed(text: str) -> Any:
    return json.loads(text)


def _written(key: str) -> str:
    """Give a key as it stands in the text of the details."""
    return json.dumps(key, ensure_ascii=False)
