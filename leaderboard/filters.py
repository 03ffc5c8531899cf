"""Filters as people type them: `latency_p50_ms<5 and role=student`, `student int8 size_bytes<8MB`.

`parse` gives a `Filter` that selects in the database (`clause`) and over records (`keeps`), with one meaning; the page
reads the same language in page_filter.js, with the columns and units of `grammar`. Nothing is evaluated: a small
grammar is read by hand. A figure that is empty meets no comparison but `=empty`.

    any   := all ("or" all)*          all := one (["and"] one)*      one := "not" one | "(" any ")" | test | text
    test  := column (< | <= | > | >= | = | == | != | ~) value | column "in" "(" value ("," value)* ")"
    text  := word | 'text' | "text"   (a text column of the row holds it, whatever the case of its ASCII letters)
    value := number with an optional unit of the column (5ms, 8MB, 3M, 95%) | text | empty
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, false, func, not_, or_

from tutelage.quantities import KINDS, amount
from tutelage.records import InputError, Row

from . import clauses
from .columns import OF_FORMER, Column, by_any_name, known, of_test_set
from .columns import column as column_named
from .details import expression

# Blanks are named, so that the page and Python part a filter at the same places.
_BLANKS = " \t\n\r\f\v\u00a0"
_TOKEN = re.compile(
    rf"""[{_BLANKS}]*(?:(<=|>=|==|!=|[<>=~(),])|"([^"]*)"|'([^']*)'|([^{_BLANKS}<>=!~(),"']+))""",
)
_CLOSING = (("symbol", ")"), ("symbol", ","))
_SIGNS = ("<", "<=", ">", ">=", "=", "==", "!=", "~")
# A filter is a line; deep nesting is a mistake or an attack on the stack. SQLite (3.40) parses with a stack of 100
# symbols, which 30 times `not` overflow.
_MAX_DEPTH = 20
# SQLite takes expressions of depth 1,000 and 32,766 values; a list of values is one test.
_MAX_TESTS = 500
_MAX_VALUES = 25_000
_MAX_SHOWN = 200  # characters of a filter in an error
_MOST_NAMED = 12  # values of a column in a hint
_BARE = re.compile(r"[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?")
_ALL_UNITS = tuple({unit.lower() for kind in KINDS.values() for unit in kind.units if unit})
_EMPTY = object()


@dataclass(frozen=True)
class Filter:
    """A parsed filter; `clause` for the database and `keeps` for a record agree.

    named: the texts that it asks a column to be, as (column, text). figures: the columns of numbers that it compares.
    """

    text: str
    clause: Callable[[Table], ColumnElement[bool]]
    keeps: Callable[[Row], bool]
    named: tuple[tuple[str, str], ...] = ()
    figures: tuple[str, ...] = ()


def parse(text: str) -> Filter:
    """Read a filter, or raise InputError that shows where it went wrong."""
    parser = _Parser(text)
    found = parser.any(0)
    if parser.place < len(parser.tokens):
        raise parser.error(f"unexpected {parser.tokens[parser.place][1]!r}")
    return Filter(text, found.clause, found.keeps, tuple(parser.named), tuple(dict.fromkeys(parser.figures)))


def misspelt(text: str | None, values: Callable[[str], Iterable[str]]) -> list[str]:
    """Say of a filter that keeps no row which of its texts no row has, with the nearest that there is.

    values: gives the texts of a column, by its name.
    """
    said = []
    for name, wanted in dict.fromkeys(parse(text).named) if text is not None else ():
        known = sorted(set(values(name)) - {""})
        if wanted in known or not known:
            continue
        near = difflib.get_close_matches(wanted, known, n=1) or [one for one in known if one.lower() == wanted.lower()]
        more = ", ..." if len(known) > _MOST_NAMED else ""
        hint = f"the nearest is {near[0]!r}" if near else f"there are {', '.join(known[:_MOST_NAMED])}{more}"
        said.append(f"no row has {name} {wanted!r}: {hint}")
    return said


def number(text: str, column: str = "") -> float | None:
    """Read a number with an optional unit (`5`, `8MB`, `1.2ms`, `3%`); None for no number, or a unit of another column.

    Without a column every unit is known.
    """
    for kind in [KINDS[column_named(column).kind]] if column else KINDS.values():
        try:
            return amount(text, kind)
        except InputError:
            continue
    return None


def filterable() -> dict[str, Column]:
    """Give the columns that a filter may compare, by every name that they answer to."""
    return {name: one for name, one in by_any_name().items() if _is_compared(one)}


def grammar() -> dict[str, Any]:
    """Give what the page needs to know to read the same language: columns, their other names, kinds, units, limits.

    A page holds current rows: it has no column of those that are not.
    """
    columns = [one for one in known() if _is_compared(one) and one.name not in OF_FORMER]
    return {
        "names": {name: one.name for name, one in filterable().items() if name != one.name},
        "texts": [one.name for one in columns if one.is_text],
        "kinds": {one.name: one.kind for one in columns if one.is_number},
        "lists": [one.name for one in columns if one.is_list],
        "searched": [one.name for one in columns if _is_searched(one)],
        "units": {name: {"what": kind.what, "units": kind.units} for name, kind in KINDS.items()},
        "most": {"depth": _MAX_DEPTH, "tests": _MAX_TESTS, "values": _MAX_VALUES},
    }


def _is_compared(one: Column) -> bool:
    return one.is_number or (one.is_text and one.name != "measurement")


def _is_searched(one: Column) -> bool:
    """Say whether a bare text is searched in a column: in the texts of the row itself."""
    return one.is_searched and one.is_text and _is_compared(one) and not one.at


class _Parser:
    """One pass over the tokens, one method a rule of the grammar; a token is (kind, text)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.columns = filterable()
        self.place = self.num_tests = self.num_values = 0
        self.named: list[tuple[str, str]] = []
        self.figures: list[str] = []
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip(_BLANKS):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self.error(f"cannot read {text[at:].strip(_BLANKS)[:20]!r}")
            symbol, double, single, word = match.groups()
            kind = "symbol" if symbol else "word" if word else "text"
            self.tokens.append((kind, symbol or word or (double if double is not None else single)))
            at = match.end()

    def error(self, what: str) -> InputError:
        """Make the error that shows the filter, what is wrong with it, and a filter that is right."""
        shown = self.text if len(self.text) <= _MAX_SHOWN else self.text[:_MAX_SHOWN] + "..."
        return InputError(f"filter {shown!r}: {what}; e.g. 'latency_p50_ms<5 and role=student'")

    def take(self, *wanted: str) -> str | None:
        """Step over the next token if it is one of these words or symbols."""
        if self.place < len(self.tokens):
            kind, token = self.tokens[self.place]
            if kind != "text" and token.lower() in wanted:
                self.place += 1
                return token.lower()
        return None

    def any(self, depth: int) -> Filter:
        """Read parts joined by `or`; `depth` counts the brackets around them."""
        parts = [self.all(depth)]
        while self.take("or"):
            parts.append(self.all(depth))
        if len(parts) == 1:
            return parts[0]
        return Filter(
            "", lambda table: or_(*(p.clause(table) for p in parts)), lambda row: any(p.keeps(row) for p in parts)
        )

    def all(self, depth: int) -> Filter:
        """Read parts joined by `and`, or by nothing."""
        parts = [self.one(depth)]
        while self.take("and") or self.goes_on():
            parts.append(self.one(depth))
        if len(parts) == 1:
            return parts[0]
        return Filter(
            "", lambda table: and_(*(p.clause(table) for p in parts)), lambda row: all(p.keeps(row) for p in parts)
        )

    def one(self, depth: int) -> Filter:
        """Read a bracket, a `not`, a test of a column, or a word that is searched for."""
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
        return self.test() if self.begins_test() else self.search()

    def goes_on(self) -> bool:
        """Say whether something follows that is joined by a blank alone, which means `and`."""
        return self.place < len(self.tokens) and not self.is_word("or") and self.tokens[self.place] not in _CLOSING

    def is_word(self, *words: str) -> bool:
        """Say whether the next token is one of these words, not quoted."""
        kind, token = self.tokens[self.place]
        return kind == "word" and token.lower() in words

    def begins_test(self) -> bool:
        """Say whether a comparison comes next: a column is known by what follows it."""
        if self.place + 1 >= len(self.tokens) or self.tokens[self.place][0] == "symbol":
            return self.place >= len(self.tokens)  # `column` says what is missing
        kind, token = self.tokens[self.place + 1]
        return (kind == "symbol" and token in _SIGNS) or (kind == "word" and token.lower() == "in")

    def search(self) -> Filter:
        """Read a text that a row's texts are searched for."""
        kind, token = self.tokens[self.place]
        if kind == "symbol":
            raise self.error(f"unexpected {token!r}")
        if kind == "word" and token in self.columns:
            raise self.error(f"after {token} write one of < <= > >= = != ~ in, or quote it to search for it")
        if self.is_word("and", "or", "in"):
            raise self.error(f"a column or a text is missing before {token!r}")
        self.place += 1
        self.count()
        parts = [_test(column, "~", token) for column in known() if _is_searched(column)]
        return Filter(
            "", lambda table: or_(*(p.clause(table) for p in parts)), lambda row: any(p.keeps(row) for p in parts)
        )

    def count(self) -> None:
        """Count one more test; raise InputError where there are more than the database takes."""
        self.num_tests += 1
        if self.num_tests > _MAX_TESTS:
            raise self.error(f"more than {_MAX_TESTS} tests: write `column in (a, b, ...)` for many values")

    def test(self) -> Filter:
        """Read `column sign value` or `column in (value, ...)`."""
        column = self.column()
        if column.is_number:
            self.figures.append(column.name)
        self.count()
        if self.take("in"):
            if not self.take("("):
                raise self.error("write `in (a, b)`")
            values = [self.value(column)]
            while self.take(","):
                values.append(self.value(column))
            if not self.take(")"):
                raise self.error("a ')' is missing")
            self.name(column, *values)
            return _one_of(column, values)
        sign = self.take("<", "<=", ">", ">=", "=", "==", "!=", "~")
        if sign is None:
            raise self.error(f"after {column.name} write one of < <= > >= = != ~ in")
        if column.is_list and sign in ("<", "<=", ">", ">="):
            raise self.error(f"{column.name} is a list: write = != ~ or in, not {sign}")
        value = self.value(column)
        if sign == "~" and (column.is_number or value is _EMPTY):
            raise self.error(f"~ (contains) takes a text column and a text, not {column.name}")
        if value is _EMPTY and sign not in ("=", "==", "!="):
            raise self.error(f"empty can be = or !=, not {sign}")
        if sign in ("=", "=="):
            self.name(column, value)
        return _test(column, sign, value)

    def name(self, column: Column, *values: Any) -> None:
        """Keep the texts that a column is to be, for `misspelt`."""
        self.named += [(column.name, value) for value in values if isinstance(value, str) and not column.is_list]

    def column(self) -> Column:
        """Read the name of a column; raise InputError for an unknown one, with the nearest."""
        if self.place >= len(self.tokens):
            raise self.error("a column is missing at the end")
        name = self.tokens[self.place][1]
        found = self.columns.get(name) or of_test_set(name)
        if found is None:
            names = [one.name for one in self.columns.values()]
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
            raise self.error(f"no column {name!r}, the nearest is {near[0]!r}")
        self.place += 1
        return found

    def value(self, column: Column) -> Any:
        """Read a value of a column: text, a number in the column's unit, or `empty`."""
        if self.place >= len(self.tokens) or self.tokens[self.place][0] == "symbol":
            raise self.error(f"a value for {column.name} is missing")
        kind, token = self.tokens[self.place]
        self.place += 1
        self.num_values += 1
        if self.num_values > _MAX_VALUES:
            raise self.error(f"more than {_MAX_VALUES} values: filter what is exported instead")
        if kind == "word" and token.lower() == "empty":
            return _EMPTY
        if column.is_text:
            return token
        if kind == "word" and _BARE.fullmatch(token) and self.place < len(self.tokens) and self.is_word(*_ALL_UNITS):
            token += self.tokens[self.place][1]  # `5 ms`
            self.place += 1
        try:
            return amount(token, KINDS[column.kind])
        except InputError as error:
            raise self.error(f"{column.name}: {error}") from None


def _test(column: Column, sign: str, value: Any) -> Filter:
    """Build one comparison; text that is empty and a figure that is absent are both `empty`."""
    if value is _EMPTY:
        wanted = sign != "!="

        def empty(table: Table) -> ColumnElement[bool]:
            found = clauses.empty(expression(table, column), is_number=column.is_number)
            return found if wanted else not_(found)

        return Filter("", empty, lambda row: (column.of(row) in (None, "")) == wanted)
    if sign == "~":
        needle = clauses.folded(str(value))
        return Filter(
            "",
            lambda table: clauses.contains(expression(table, column), str(value)),
            lambda row: needle in clauses.folded(str(column.of(row))),
        )
    if column.is_list:
        found = _one_of(column, [value])
        if sign != "!=":
            return found
        return Filter("", lambda table: not_(found.clause(table)), lambda row: not found.keeps(row))
    compare = clauses.OPERATORS[sign]

    def keeps(row: Row) -> bool:
        found = column.of(row)
        return found is not None and bool(compare(found, value))

    return Filter("", lambda table: clauses.compare(expression(table, column), sign, value), keeps)


def _one_of(column: Column, values: Sequence[Any]) -> Filter:
    """Build `in`: one membership test, whatever the number of values, and `empty` beside it."""
    known = [value for value in values if value is not _EMPTY]
    wanted = set(known)
    absent = _test(column, "=", _EMPTY) if len(known) < len(values) else None

    def clause(table: Table) -> ColumnElement[bool]:
        if column.is_list:
            found = or_(false(), *(table.info["members"][column.name](value) for value in known))
        else:
            found = clauses.one_of(expression(table, column), known)
        return found if absent is None else or_(found, absent.clause(table))

    def keeps(row: Row) -> bool:
        said = column.of(row)
        is_there = not wanted.isdisjoint(said.split(" ")) if column.is_list else said in wanted
        return is_there or (absent is not None and absent.keeps(row))

    return Filter("", clause, keeps)
