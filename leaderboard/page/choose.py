"""Which rows a page shows of a board that is too large for one: `chosen` gives their frame and says which they are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from tutelage.leaderboard import pareto
from tutelage.leaderboard.store import Store, fronts
from tutelage.leaderboard.store.page import MOST_ROWS, Request
from tutelage.leaderboard.store.ranking import Board, marked

from .data import page_columns

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Chosen:
    """The rows of a page, how many there are in all, and a sentence that says which these are; empty for all."""

    rows: pd.DataFrame
    count: int
    note: str


def chosen(store: Store, filter: str = "", limit: int = MOST_ROWS) -> Chosen:
    """Read the rows of a page, at most `limit`: those on fronts first, then the newest."""
    count = store.count(filter)
    if count <= limit:
        return Chosen(store.frame(filter, columns=page_columns(), categories=True), count, "")
    numbers, on_front = _chosen_numbers(store, filter, limit)
    found = store.frame(columns=page_columns(), categories=True, numbers=numbers)
    found = found.assign(on_front=np.isin(numbers, list(on_front)))
    note = (
        f"{len(found):,} of {count:,} rows: those on a front of quality against latency or size, then the newest. "
        "How sure a front is goes by these rows."
    )
    return Chosen(found, count, note)


def _chosen_numbers(store: Store, filter: str, limit: int) -> tuple[list[int], set[int]]:
    """Choose rows of a board that is too large for a page: numbers, oldest first, and which of them are on the front.

    Those on the default front of their group, those on a front of a quality and a cost of it, then the newest.
    """
    default: set[int] = set()
    pairs: set[int] = set()
    with store.reading() as connection:
        board = Board(connection, Request(filter))
        for key in board.keys:
            figures = board.front_figures(key)
            if figures is None:
                default |= {number for number, mark in marked(board, key, {}).items() if mark}
            else:
                default.update(fronts.default_front(figures))
            for ways in product(pareto.COSTS, pareto.QUALITY):
                pair = board.contenders(key, ways) if figures is None else figures[:, fronts.places_of(ways)]
                pairs.update(fronts.exact_front(pair, ways))
        newest = board.newest(limit)
    some = sorted(default, reverse=True) + sorted(pairs - default, reverse=True) + newest
    return sorted(list(dict.fromkeys(some))[:limit]), default
