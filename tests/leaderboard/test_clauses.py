"""Comparisons of a filter: SQLite keeps what Python keeps, which compares exactly; PostgreSQL is sent its spelling."""

import math
import operator
from collections.abc import Iterator

import pytest
from sqlalchemy import BigInteger, Column, Connection, Double, MetaData, Table, Text, create_engine, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.expression import ColumnElement

from tutelage.leaderboard import clauses
from tutelage.records import InputError

WHOLE = [None, -(2**63), -(2**63) + 1, -(2**53) - 1, -3, -2, 0, 2, 3, 2**53 + 1, 2**63 - 1]
FIGURES = [None, -0.5, 0.0, 0.1, 0.5, 1.0, 1e300]
TEXTS = ["", "A", "a", "Z", "aB", "zoë", "ZOË", "Ä", "ä", "50%_sure"]
BOUNDS = [0.0, 2.0, 2.5, 3.0, 3.5, 2.0**53, 2.0**53 + 2, 2.0**62, 2**63 - 1, 2**63 + 1, 2.0**63, 2.0**64, math.inf]
SIGNS = {
    **{"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    **{"=": operator.eq, "==": operator.eq, "!=": operator.ne},
}
TABLES = {
    name: Table(name, MetaData(), Column("value", kind))
    for name, kind in (("whole", BigInteger()), ("figure", Double()), ("text", Text()))
}


@pytest.fixture(scope="module")
def database() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        for (name, table), values in zip(TABLES.items(), (WHOLE, FIGURES, TEXTS), strict=True):
            table.create(connection)
            connection.execute(table.insert(), [{"value": value} for value in values])
            assert [value for (value,) in connection.execute(select(table.c.value))] == values, name
        yield connection
    engine.dispose()


def kept(database: Connection, name: str, clause: ColumnElement[bool]) -> list[object]:
    return [value for (value,) in database.execute(select(TABLES[name].c.value).where(clause))]


@pytest.mark.parametrize("sign", SIGNS)
def test_a_comparison_keeps_what_python_keeps(database: Connection, sign: str) -> None:
    signed = [*BOUNDS, *(-bound for bound in BOUNDS)]
    for name, values, bounds in (("whole", WHOLE, signed), ("figure", FIGURES, signed), ("text", TEXTS, TEXTS)):
        for bound in bounds:
            expected = [value for value in values if value is not None and SIGNS[sign](value, bound)]  # type: ignore[attr-defined]
            assert kept(database, name, clauses.compare(TABLES[name].c.value, sign, bound)) == expected, bound  # type: ignore[arg-type]


def test_one_of_some_values_is_any_of_them(database: Connection) -> None:
    lists: list[list[float]] = [
        [],
        [2.5],
        [2.0, 3.5, -3.0],
        [-(2.0**63), 2.0**63],
        [2.0**63],
        [math.inf, 0.0],
        [0.1, 1e300],
    ]
    for name, values in (("whole", WHOLE), ("figure", FIGURES)):
        for some in lists:
            expected = [value for value in values if value is not None and value in some]  # type: ignore[attr-defined]
            assert kept(database, name, clauses.one_of(TABLES[name].c.value, some)) == expected, some
    assert kept(database, "text", clauses.one_of(TABLES["text"].c.value, ["a", "Ä", "z"])) == ["a", "Ä"]


def test_there_are_at_most_30000_values_in_a_list() -> None:
    column = TABLES["whole"].c.value
    clauses.one_of(column, [1.0] * 30_000)
    with pytest.raises(InputError, match=r"value in \(30001 values\): give at most 30000"):
        clauses.one_of(column, [1.0] * 30_001)


def test_a_text_contains_another_whatever_the_case_of_ascii_letters(database: Connection) -> None:
    upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert clauses.folded(f"@{upper}[`az{{ÄË") == f"@{upper.lower()}[`az{{ÄË"
    for part, expected in (
        ("", TEXTS), ("A", ["A", "a", "aB"]), ("ab", ["aB"]), ("B", ["aB"]), ("Zo", ["zoë", "ZOË"]), ("oë", ["zoë"]),
        ("Ä", ["Ä"]), ("%", ["50%_sure"]), ("_", ["50%_sure"]), ("a_", []), ("SURE", ["50%_sure"]),
    ):  # fmt: skip
        assert kept(database, "text", clauses.contains(TABLES["text"].c.value, part)) == expected, part


def test_empty_is_no_figure_or_no_text(database: Connection) -> None:
    for name, is_number, expected in (("whole", True, [None]), ("figure", True, [None]), ("text", False, [""])):
        assert kept(database, name, clauses.empty(TABLES[name].c.value, is_number=is_number)) == expected


@pytest.mark.parametrize("sign", SIGNS)
def test_postgresql_orders_and_folds_by_bytes_and_finds_equal_texts_by_its_index(sign: str) -> None:
    column = TABLES["text"].c.value
    options = {"dialect": postgresql.dialect(), "compile_kwargs": {"literal_binds": True}}  # type: ignore[no-untyped-call]
    ordered = sign in ("<", "<=", ">", ">=")
    left, shown = '((text.value) COLLATE "C")' if ordered else "text.value", "=" if sign == "==" else sign
    assert str(clauses.compare(column, sign, "b").compile(**options)) == f"{left} {shown} 'b'"
    contains = clauses.contains(column, "B")
    assert str(contains.compile(**options)) == "(strpos(lower(text.value COLLATE \"C\"), 'b') > 0)"
