"""What `leaderboard show` prints: the rows that a filter keeps, or one row whole and where it stands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tutelage.records import InputError

if TYPE_CHECKING:
    from tutelage.leaderboard.store import Store
    from tutelage.leaderboard.store.page import Request
    from tutelage.records import Row

MAX_SHOWN = 200  # rows of `leaderboard show` where no --limit is given
_PART = 500  # rows of a JSON list that are held at once


def print_board(store: Store, asked: Request, console: Console, *, as_json: bool = False, columns: str = "") -> None:
    """Print the rows of a store that are asked for; only the page and the columns that are shown are read."""
    from tutelage.leaderboard.store.ranking import page_of
    from tutelage.leaderboard.terminal.table import columns_to_rank, needed_columns, show_table

    if asked.ties and not asked.objectives:
        raise InputError("--ties belongs to a front: name its figures too, e.g. --front latency_p50_ms,auc")
    if columns and as_json:
        raise InputError("--columns has no effect on --json, which gives every column: leave one of them out")
    if as_json:
        _print_json(store, asked)
        return
    names = [name.strip() for name in columns.split(",") if name.strip()]
    objectives = list(asked.objectives) or None
    asked = replace(asked, limit=asked.limit or MAX_SHOWN)
    page = page_of(store, asked, columns_to_rank(objectives))
    if not page.count:
        _print_unmatched(store, asked)

    def more(ids: list[str]) -> dict[str, list[Any]]:
        read = needed_columns([*names, *([page.sort] if page.sort and names else [])])
        return store.by_number(page.columns["number"], tuple(dict.fromkeys(("row_id", *read))), every=True)

    if page.count and not page.marks:
        raise InputError(f"there are {page.count} rows: choose an earlier --page")
    show_table(
        page.columns, console, objectives=objectives, ties=asked.ties, limit=len(page.marks), names=names, more=more,
        page=page,
    )  # fmt: skip
    ranked = [name.partition(":")[0] for name in asked.objectives]  # NAME or NAME:max
    absent = [name for name in ranked if not any(one is not None and one == one for one in page.columns.get(name, ()))]
    for line in _without(store, absent if page.count else ()):
        console.print(f"{line}: nothing is on that front.", highlight=False, soft_wrap=True)
    if unfinished := store.unfinished(asked.filter):
        message = f"{unfinished} of these rows are of a run that goes on, or was stopped: figures are still to come."
        console.print(message, highlight=False, soft_wrap=True)
    if not asked.every and any(hidden := store.num_hidden(asked.filter)):
        message = f"{hidden[0]} superseded and {hidden[1]} retracted rows are not shown: --all shows them."
        console.print(message, highlight=False, soft_wrap=True)


def unmatched(store: Store, filter: str | None) -> list[str]:
    """Say which texts and figures of a filter that keeps no row no row has, with the nearest text."""
    from tutelage.leaderboard.filters import misspelt, parse

    said = misspelt(filter, lambda name: {one for part in store.parts((name,), every=True) for one in part[name]})
    return [*said, *_without(store, parse(filter).figures if filter else ())]


def _without(store: Store, figures: Iterable[str]) -> list[str]:
    """Say which figures no row of the leaderboard has: a front or a filter on one of them says nothing."""
    return [f"no row has {name}" for name in figures if not store.count(f"not {name}=empty", every=True)]


def _print_unmatched(store: Store, asked: Request) -> None:
    for line in unmatched(store, asked.filter or None):
        print(f"note: {line}", file=sys.stderr)


def _print_json(store: Store, asked: Request) -> None:
    """Print rows as a JSON list, some at a time: a million of them are not held at once."""
    from tutelage.leaderboard.columns import OF_FORMER
    from tutelage.leaderboard.export import finite
    from tutelage.leaderboard.store.ranking import marks_of, ranked_numbers

    numbers, marks = ranked_numbers(store, asked), marks_of(store, asked)
    if not numbers:
        _print_unmatched(store, asked)
    said = ("tags", *(OF_FORMER if asked.every else ()))
    print("[", end="")
    for start in range(0, len(numbers), _PART):
        some = numbers[start : start + _PART]
        former = store.by_number(some, said, every=True)
        records = [
            {
                "row_id": row.key,
                **row.to_dict(),
                **_standing_on_front(marks.get(number, "")),
                **{name: former[name][place] for name in said},
            }
            for place, (number, row) in enumerate(zip(some, store.numbered(some), strict=True))
        ]
        print(", " * bool(start) + json.dumps(finite(records))[1:-1], end="")
    print("]")


def objectives_of(front: str | None) -> list[str] | None:
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
    from tutelage.leaderboard.team.people import tags_of
    from tutelage.leaderboard.terminal.provenance import lines, provenance, status
    from tutelage.leaderboard.terminal.standing import show_standing, standing_of
    from tutelage.leaderboard.terminal.table import printable, show_row

    if how:
        from tutelage.cli.output import print_figures

        said = provenance(store, row)
        if as_json:
            print(json.dumps(finite(said)))
            return
        print_figures({name: printable(words) for name, words in lines(said)}, console)
        return
    objectives = objectives_of(front)
    standing = standing_of(store, row, objectives)
    if as_json:
        placed = None if standing is None else standing.to_dict()
        said = {**store.former(row.key), "tags": tags_of(store, row.key)}
        print(json.dumps(finite({"row_id": row.key, **row.to_dict(), **said, "standing": placed})))
        return
    if tagged := tags_of(store, row.key):
        console.print(f"tags  {' '.join(tagged)}", highlight=False, markup=False, soft_wrap=True)
    show_row(row, console, measurement=store.measurement(row.measurement) if row.measurement else None)
    if standing is None:
        console.print(
            f"\nOn no front: {printable(status(store.former(row.key)))}.", highlight=False, markup=False, soft_wrap=True
        )
        return
    show_standing(standing, console)
