"""Comparisons of a filter as SQL that SQLite, PostgreSQL and Python answer alike.

Left to themselves they differ: PostgreSQL sorts and folds text by the server's locale, SQLite by bytes and ASCII;
SQLite's LIKE ignores case; one of them rounds whole numbers beyond 2^53 that are compared with a fraction.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, ColumnElement, Double, Text, false, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from tutelage.records import InputError

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    **{"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    **{"=": operator.eq, "==": operator.eq, "!=": operator.ne},
}
# Every dialect folds these letters alone (`~`): SQLite's lower() knows no others, and PostgreSQL's "C" collation.
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_LEAST, _MOST = -(2**63), 2**63 - 1  # what a BigInteger column holds
# SQLite takes 32,766 values in one statement.
_MOST_VALUES = 30_000


class _ByBytes(FunctionElement[str]):
    """A text column that is ordered and folded by its UTF-8 bytes, whatever the server's locale."""

    type = Text()
    inherit_cache = True


@compiles(_ByBytes)
def _by_bytes(element: _ByBytes, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(_ByBytes, "postgresql")
def _by_bytes_postgresql(element: _ByBytes, compiler: SQLCompiler, **options: Any) -> str:
    return f'(({compiler.process(element.clauses, **options)}) COLLATE "C")'


class _Scanned(FunctionElement[Any]):
    """A column that SQLite uses no index of."""

    inherit_cache = True


@compiles(_Scanned)
def _scanned(element: _Scanned, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(_Scanned, "sqlite")
def _scanned_sqlite(element: _Scanned, compiler: SQLCompiler, **options: Any) -> str:
    return f"(+{compiler.process(element.clauses, **options)})"


class _Contains(FunctionElement[bool]):
    """Whether a text column, ASCII letters in lower case, holds a text: no character of it is a wildcard."""

    type = Boolean()
    inherit_cache = True


@compiles(_Contains)
def _contains(element: _Contains, compiler: SQLCompiler, **options: Any) -> str:
    column, text = (compiler.process(part, **options) for part in element.clauses)
    return f"(instr(lower({column}), {text}) > 0)"


@compiles(_Contains, "postgresql")
def _contains_postgresql(element: _Contains, compiler: SQLCompiler, **options: Any) -> str:
    column, text = (compiler.process(part, **options) for part in element.clauses)
    return f'(strpos(lower({column} COLLATE "C"), {text}) > 0)'


def by_bytes(column: ColumnElement[Any]) -> ColumnElement[str]:
    """Give a text column that sorts by its bytes on every database."""
    return _ByBytes(column)


def scanned(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Give a column that SQLite looks for, and sorts by, without an index: it knows no numbers of rows.

    It takes a range for rare, and most rows of a board may meet one. (Its `INDEXED BY` is beyond SQLAlchemy, which
    leaves hints out of what it sends to SQLite.) PostgreSQL has statistics and decides by itself.
    """
    found = _Scanned(column)
    found.type = column.type
    return found


def folded(text: str) -> str:
    """Give a text as `~` compares it: ASCII letters in lower case, all others as they are."""
    return text.translate(_ASCII_LOWER)


def contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Select the rows whose text holds another, whatever the case of its ASCII letters."""
    return _Contains(column, literal(folded(text), Text()))


def compare(column: ColumnElement[Any], sign: str, value: float | str) -> ColumnElement[bool]:
    """Select by one comparison; an empty figure meets none."""
    if isinstance(value, str):
        ordered = _ByBytes(column) if sign in ("<", "<=", ">", ">=") else column
        return _compared(sign, ordered, literal(value, Text()))
    if isinstance(column.type, BigInteger):
        return _compare_whole(column, sign, value)
    return _compared(sign, column, literal(value, Double()))


def one_of(column: ColumnElement[Any], values: Sequence[float | str]) -> ColumnElement[bool]:
    """Select the rows whose value is one of some."""
    if len(values) > _MOST_VALUES:
        raise InputError(
            f"{getattr(column, 'name', 'a column')} in ({len(values)} values): give at most {_MOST_VALUES}"
        )
    if isinstance(column.type, BigInteger):
        numbers = [float(value) for value in values]
        values = [int(value) for value in numbers if value.is_integer() and _LEAST <= value <= _MOST]
    return column.in_(values) if values else false()


def empty(column: ColumnElement[Any], *, is_number: bool) -> ColumnElement[bool]:
    """Select the rows without this figure, or with an empty text."""
    return column.is_(None) if is_number else column == ""


def _compare_whole(column: ColumnElement[Any], sign: str, value: float) -> ColumnElement[bool]:
    """Compare whole numbers with a number: the bound becomes a whole number that means the same.

    `x < 2.5` is `x <= 2`. A bound beyond what the column holds is met by every figure, or by none.
    """
    known = column.is_not(None)
    if not _LEAST <= value <= _MOST:
        met = OPERATORS[sign](0.0, value)
        return known if met else false()
    if sign in ("=", "==", "!="):
        if not float(value).is_integer():
            return known if sign == "!=" else false()
        bound = int(value)
    elif sign in ("<", ">="):
        bound = math.ceil(value)
    else:
        bound = math.floor(value)
    return _compared(sign, column, literal(bound, BigInteger()))


def _compared(sign: str, column: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
    found: ColumnElement[bool] = OPERATORS[sign](column if sign in ("=", "==") else scanned(column), value)
    return found
