"""Filters as people type them: `latency_p50_ms<5 and role=student`, `size_bytes<8MB and not teacher=empty`.

Enters: text. Leaves: a `Filter` that selects in the database (`clause`) and over records (`keeps`), with one meaning.
Nothing is evaluated: a small grammar is read by hand. A figure that is empty meets no comparison but `=empty`.

    any   := all ("or" all)*          all := one ("and" one)*        one := "not" one | "(" any ")" | test
    test  := column (< | <= | > | >= | = | == | != | ~) value | column "in" "(" value ("," value)* ")"
    value := number with an optional unit (k M G ms us s kB MB GB) | word | 'text' | "text" | empty
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, false, func, not_, or_

from tutelage.records import InputError, Row

from .schema import GAINS, gains_of

_TEXT = ("row_id", "model", "role", "teacher", "recipe", "dataset", "split", "scheme", "runtime", "device")
TEXT_COLUMNS = (*_TEXT, "created", "source", "twin", "parent")
NUMBER_COLUMNS = (
    *("batch", "threads", "seed", "accuracy", "accuracy_lo", "accuracy_hi", "auc", "auc_lo", "auc_hi"),
    *("params", "macs", "size_bytes", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms"),
    *("peak_rss_bytes", "energy_mj", *GAINS),
)
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "ms": 1.0, "us": 1e-3}
_UNITS |= {"s": 1e3, "%": 1e-2, "mJ": 1.0}
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([a-zA-Z%]*)$")
_TOKEN = re.compile(r"""\s*(?:(<=|>=|==|!=|[<>=~(),])|"([^"]*)"|'([^']*)'|([^\s<>=!~(),"']+))""")
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    **{"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    **{"=": operator.eq, "==": operator.eq, "!=": operator.ne},
}
_EMPTY = object()
# A filter is a line; deep nesting is a mistake or an attack on the stack.
_MAX_DEPTH = 50
# Both sides fold the same letters: SQLite's lower() knows ASCII alone.
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True)
class Filter:
    """A parsed filter; `clause` for the database and `keeps` for a record agree."""

    text: str
    clause: Callable[[Table], ColumnElement[bool]]
    keeps: Callable[[Row], bool]


def parse(text: str) -> Filter:
    """Read a filter, or raise InputError that shows where it went wrong."""
    parser = _Parser(text)
    found = parser.any(0)
    if parser.place < len(parser.tokens):
        raise parser.error(f"unexpected {parser.tokens[parser.place][1]!r}")
    return Filter(text, found.clause, found.keeps)


def number(text: str) -> float | None:
    """Read a number with an optional unit (`5`, `8MB`, `1.2ms`, `3%`) in the column's own unit; None for no number."""
    match = _NUMBER.match(text)
    if match is None or match.group(2) not in _UNITS:
        return None
    return float(match.group(1)) * _UNITS[match.group(2)]


def _value_of(row: Row, column: str) -> Any:
    if column in GAINS:
        return gains_of(row.details)[column]
    return row.key if column == "row_id" else getattr(row, column)


class _Parser:
    """One pass over the tokens, one method a rule of the grammar; a token is (kind, text)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                raise self.error(f"cannot read {text[at:].strip()[:20]!r}")
            symbol, double, single, word = match.groups()
            kind = "symbol" if symbol else "word" if word else "text"
            self.tokens.append((kind, symbol or word or (double if double is not None else single)))
            at = match.end()

    def error(self, what: str) -> InputError:
        return InputError(f"filter {self.text!r}: {what}; e.g. 'latency_p50_ms<5 and role=student'")

    def take(self, *wanted: str) -> str | None:
        """Step over the next token if it is one of these words or symbols."""
        if self.place < len(self.tokens):
            kind, token = self.tokens[self.place]
            if kind != "text" and token.lower() in wanted:
                self.place += 1
                return token.lower()
        return None

    def any(self, depth: int) -> Filter:
        parts = [self.all(depth)]
        while self.take("or"):
            parts.append(self.all(depth))
        if len(parts) == 1:
            return parts[0]
        return Filter(
            "", lambda table: or_(*(p.clause(table) for p in parts)), lambda row: any(p.keeps(row) for p in parts)
        )

    def all(self, depth: int) -> Filter:
        parts = [self.one(depth)]
        while self.take("and"):
            parts.append(self.one(depth))
        if len(parts) == 1:
            return parts[0]
        return Filter(
            "", lambda table: and_(*(p.clause(table) for p in parts)), lambda row: all(p.keeps(row) for p in parts)
        )

    def one(self, depth: int) -> Filter:
        if depth > _MAX_DEPTH:
            raise self.error(f"nested more than {_MAX_DEPTH} deep")
        if self.take("not"):
            inner = self.one(depth + 1)
            # A comparison with NULL is NULL, and so would be its negation: here, and only here, it must be a plain no,
            # so that elsewhere the database may use its indexes.
            return Filter(
                "",
                lambda table: not_(func.coalesce(inner.clause(table), false())),
                lambda row: not inner.keeps(row),
            )
        if self.take("("):
            inner = self.any(depth + 1)
            if not self.take(")"):
                raise self.error("a ')' is missing")
            return inner
        return self.test()

    def test(self) -> Filter:
        column = self.column()
        if self.take("in"):
            if not self.take("("):
                raise self.error("write `in (a, b)`")
            values = [self.value(column)]
            while self.take(","):
                values.append(self.value(column))
            if not self.take(")"):
                raise self.error("a ')' is missing")
            parts = [_test(column, "=", value) for value in values]
            return Filter(
                "", lambda table: or_(*(p.clause(table) for p in parts)), lambda row: any(p.keeps(row) for p in parts)
            )
        sign = self.take("<", "<=", ">", ">=", "=", "==", "!=", "~")
        if sign is None:
            raise self.error(f"after {column} write one of < <= > >= = != ~ in")
        value = self.value(column)
        if sign == "~" and (column in NUMBER_COLUMNS or value is _EMPTY):
            raise self.error(f"~ (contains) takes a text column and a text, not {column}")
        if value is _EMPTY and sign not in ("=", "==", "!="):
            raise self.error(f"empty can be = or !=, not {sign}")
        return _test(column, sign, value)

    def column(self) -> str:
        if self.place >= len(self.tokens):
            raise self.error("a column is missing at the end")
        name = self.tokens[self.place][1]
        known = (*TEXT_COLUMNS, *NUMBER_COLUMNS)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise self.error(f"no column {name!r}, the nearest is {near[0]!r}")
        self.place += 1
        return name

    def value(self, column: str) -> Any:
        if self.place >= len(self.tokens) or self.tokens[self.place][0] == "symbol":
            raise self.error(f"a value for {column} is missing")
        kind, token = self.tokens[self.place]
        self.place += 1
        if kind == "word" and token.lower() == "empty":
            return _EMPTY
        if column in TEXT_COLUMNS:
            return token
        found = number(token)
        if found is None:
            raise self.error(f"{column} is a number, not {token!r} (units: k M G kB MB GB us ms s %)")
        return found


def _test(column: str, sign: str, value: Any) -> Filter:
    """Build one comparison; text that is empty and a figure that is absent are both `empty`."""
    if value is _EMPTY:
        wanted = sign != "!="

        def empty(table: Table) -> ColumnElement[bool]:
            found = table.c[column].is_(None) if column in NUMBER_COLUMNS else table.c[column] == ""
            return found if wanted else not_(found)

        return Filter("", empty, lambda row: (_value_of(row, column) in (None, "")) == wanted)
    if sign == "~":
        needle = str(value).translate(_ASCII_LOWER)
        return Filter(
            "",
            lambda table: func.lower(table.c[column]).contains(needle, autoescape=True),
            lambda row: needle in str(_value_of(row, column)).translate(_ASCII_LOWER),
        )
    compare = _OPERATORS[sign]

    def keeps(row: Row) -> bool:
        found = _value_of(row, column)
        return found is not None and bool(compare(found, value))

    return Filter("", lambda table: compare(table.c[column], value), keeps)
