"""Which rows a page shows of a board that is too large for one: `chosen` gives their frame and says which they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tutelage.leaderboard.store import Store
from tutelage.leaderboard.store.page import MOST_ROWS
from tutelage.leaderboard.store.ranking import chosen_numbers

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
    numbers, on_front = chosen_numbers(store, filter, limit)
    found = store.frame(columns=page_columns(), categories=True, numbers=numbers)
    found = found.assign(on_front=np.isin(numbers, list(on_front)))
    note = (
        f"{len(found):,} of {count:,} rows: those on a front of quality against latency or size, then the newest. "
        "How sure a front is goes by these rows."
    )
    return Chosen(found, count, note)
