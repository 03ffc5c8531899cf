"""What is asked of a board (`Request`), and the page of rows that answers it (`Page`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tutelage.records import InputError

if TYPE_CHECKING:
    from tutelage.leaderboard.columns import Column

# What a table says below of all rows, where it is the same of all.
SHARED = ("dataset", "device", "runtime", "scheme")
# Rows of a drawn page: a few megabytes, which open on a phone.
MOST_ROWS = 10_000


@dataclass(frozen=True)
class Request:
    """What is asked of a board; without `sort` a table keeps groups together and sorts each by AUC, else accuracy.

    objectives, ties: of a front of one's own (`pareto.marks`). limit: None gives all rows. sort: a column, best first,
    or `COLUMN:asc`, `COLUMN:desc`. every: superseded and retracted rows, too.
    """

    filter: str = ""
    objectives: tuple[str, ...] = ()
    ties: str = ""
    limit: int | None = None
    offset: int = 0
    sort: str = ""
    every: bool = False


@dataclass(frozen=True)
class Page:
    """Rows in the order of a table: columns of the page, a mark for each row, and what is known of all rows.

    count: of all rows that are asked for. shared: the values that all of them have, of `SHARED`. offset: the place of
    the page's first row among them. sort: the column that sorts them.
    """

    columns: Mapping[str, Sequence[Any]]
    marks: Sequence[str]
    count: int
    shared: Mapping[str, str] = field(default_factory=dict)
    offset: int = 0
    sort: str = ""


def sort_of(text: str) -> tuple[Column, bool]:
    """Read what `sort` names: the column, and whether its largest values come first."""
    from tutelage.leaderboard.columns import column

    name, _, way = text.partition(":")
    one = column(name)
    if way not in ("", "asc", "desc"):
        raise InputError(f"--sort {text!r}: write COLUMN, COLUMN:asc or COLUMN:desc")
    if one.name == "on_front" or one.kind == "json":
        raise InputError(f"--sort {text!r}: a table is sorted by figures and texts, e.g. latency_p50_ms")
    return one, way == "desc" or (not way and one.better == "max")
