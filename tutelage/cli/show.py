"""What `leaderboard show` prints: the rows that a filter keeps, or one row whole and where it stands."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tutelage.cli.output import print_figures
from tutelage.records import InputError, Row

if TYPE_CHECKING:
    from tutelage.leaderboard.store import Store

MAX_SHOWN = 200  # rows of `leaderboard show` where no --limit is given


def print_board(
    store: Store,
    filter: str | None,
    console: Console,
    as_json: bool,
    front: str | None,
    ties: str,
    limit: int | None,
    columns: str = "",
    every: bool = False,
) -> None:
    """Print the rows of a store that a filter keeps; only the columns that are shown are read.

    every: superseded and retracted ones, too, with two columns that say which these are.
    """
    from tutelage.leaderboard.columns import OF_FORMER
    from tutelage.leaderboard.export import finite
    from tutelage.leaderboard.terminal.table import columns_to_rank, needed_columns, ranked, show_table

    if ties and not front:
        raise InputError("--ties belongs to a front: name its figures too, e.g. --front latency_p50_ms,auc")
    if columns and as_json:
        raise InputError("--columns has no effect on --json, which gives every column: leave one of them out")
    names = [name.strip() for name in columns.split(",") if name.strip()]
    objectives = _objectives(front)
    said = OF_FORMER if every else ()
    found = store.columns(filter, (*columns_to_rank(objectives), *said), every=every)
    if not found["row_id"]:
        for line in unmatched(store, filter):
            print(f"note: {line}", file=sys.stderr)
    if as_json:
        order, marks = ranked(found, objectives, ties) if found["row_id"] else ([], [])
        ids = [found["row_id"][place] for place in order[:limit]]
        # By id, and of every row: a run that goes on may have filed later ones since the first reading.
        rows = {row.key: row for row in store.rows(ids=ids, every=True)}
        records = [
            {
                "row_id": row_id,
                **rows[row_id].to_dict(),
                **_standing_on_front(marks[place]),
                **{name: found[name][place] for name in said},
            }
            for row_id, place in zip(ids, order, strict=False)
        ]
        print(json.dumps(finite(records)))
        return

    def more(ids: list[str]) -> dict[str, list[Any]]:
        return store.columns(names=needed_columns(names), ids=ids, every=True)

    show_table(found, console, objectives=objectives, ties=ties, limit=limit or MAX_SHOWN, names=names, more=more)
    if unfinished := store.unfinished(filter):
        message = f"{unfinished} of these rows are of a run that goes on, or was stopped: figures are still to come."
        console.print(message, highlight=False, soft_wrap=True)
    if not every and any(hidden := store.num_hidden(filter)):
        message = f"{hidden[0]} superseded and {hidden[1]} retracted rows are not shown: --all shows them."
        console.print(message, highlight=False, soft_wrap=True)


def unmatched(store: Store, filter: str | None) -> list[str]:
    """Say which texts of a filter that keeps no row are none of the leaderboard's, with the nearest."""
    from tutelage.leaderboard.filters import misspelt

    return misspelt(filter, lambda name: store.columns(names=(name,), every=True)[name])


def _objectives(front: str | None) -> list[str] | None:
    """Read the figures of `--front`; None where it was not given."""
    if front is None:
        return None
    names = [name.strip() for name in front.split(",") if name.strip()]
    if not names:
        raise InputError(f"--front {front!r}: name the figures of the front, e.g. latency_p50_ms,auc")
    return names


def _standing_on_front(mark: str) -> dict[str, Any]:
    """Say of a row's mark whether it is on the front and, of a front of --front, how sure that is."""
    words = mark.removeprefix("*").strip()
    return {"on_front": mark.startswith("*"), **({"front": words} if words else {})}


def print_row(
    row: Row, store: Store, how: bool, console: Console, as_json: bool = False, front: str | None = None
) -> None:
    """Print one row whole and where it stands among its peers, or what it is of."""
    from tutelage.leaderboard.export import finite
    from tutelage.leaderboard.standing import show_standing, standing_of
    from tutelage.leaderboard.terminal.provenance import lines, provenance, status
    from tutelage.leaderboard.terminal.table import printable, show_row

    if how:
        said = provenance(store, row)
        if as_json:
            print(json.dumps(finite(said)))
            return
        print_figures({name: printable(words) for name, words in lines(said)}, console)
        return
    objectives = _objectives(front)
    standing = standing_of(store, row, objectives)
    if as_json:
        placed = None if standing is None else standing.to_dict()
        print(json.dumps(finite({"row_id": row.key, **row.to_dict(), **store.former(row.key), "standing": placed})))
        return
    show_row(row, console, measurement=store.measurement(row.measurement) if row.measurement else None)
    if standing is None:
        console.print(
            f"\nOn no front: {printable(status(store.former(row.key)))}.", highlight=False, markup=False, soft_wrap=True
        )
        return
    show_standing(standing, console)
