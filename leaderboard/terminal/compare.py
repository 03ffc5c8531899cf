"""Two rows side by side: figures, differences, and the verdicts of the paired tests (`show_comparison`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tutelage.leaderboard import pareto
from tutelage.leaderboard.columns import COLUMNS, Column, column, columns_of_test_sets, directions, with_interval
from tutelage.leaderboard.ties import span
from tutelage.records import DATA_KEY, DEVICE_KEY, Comparison, Row

if TYPE_CHECKING:
    from rich.console import Console

# A ratio below this is printed as 1.00: no difference that anybody would choose by, counts included.
_LEAST_RATIO = 1.005


@dataclass(frozen=True)
class Difference:
    """One figure of two rows; `change` is in points (qualities) or a ratio (costs), empty if not comparable."""

    figure: str
    first: float | None
    second: float | None
    change: str
    verdict: str  # "better", "worse", "same" or "" (a tie, or not tested): the second against the first
    note: str


def differences(first: Row, second: Row, tests: Sequence[Comparison] = ()) -> list[Difference]:
    """Compare what may be compared: qualities on the same data, latencies on the same device as it was measured."""
    other_data, other_device = (_difference(first, second, key) for key in (DATA_KEY, DEVICE_KEY))
    found = []
    others = [one for row in (first, second) for one in columns_of_test_sets(row.details) if one.better]
    for one in dict.fromkeys((*map(column, directions()), *others)):
        name, way = one.name, one.better
        a, b = one.of(first), one.of(second)
        if a is None and b is None:
            continue
        change = verdict = note = ""
        if a is None or b is None:
            note = "not measured for both"
        elif way == "max" and other_data:
            note = f"other {other_data}"
        elif one.is_of_device and other_device:
            note = f"other {other_device}"
        else:
            change, verdict = _change(one, a, b)
            if way == "max":
                verdict, note = _tested(name, verdict, tests)
            elif verdict not in ("", "same") and _is_tie(name, first, second):
                verdict, note = "", "a tie: within what the measurements can tell"
        found.append(Difference(name, a, b, change, verdict, note))
    return found


def show_comparison(first: Row, second: Row, console: Console, *, tests: Sequence[Comparison] = ()) -> None:
    """Print two rows beside each other, with the tests' findings where they were made."""
    from rich.table import Table
    from rich.text import Text

    marks = {"better": ("green", " ▲"), "worse": ("red", " ▼"), "same": ("", ""), "": ("", "")}
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for letter, row in (("A", first), ("B", second)):
        table.add_column(Text(f"{letter}: {row.model}"), justify="right", overflow="fold")
    table.add_column("B against A", justify="right")
    table.add_column("")
    differ = [name for name in (*DATA_KEY, *DEVICE_KEY) if getattr(first, name) != getattr(second, name)]
    for name in dict.fromkeys(("role", "teacher", "scheme", "dataset", "device", *differ)):
        a, b = ("" if getattr(row, name) is None else str(getattr(row, name)) for row in (first, second))
        if a or b:
            table.add_row(column(name).name_for_people, Text(a or "-"), Text(b or "-"), "", "")
    for one in differences(first, second, tests):
        style, sign = marks[one.verdict]
        cells = (_written(one.figure, row) for row in (first, second))
        table.add_row(column(one.figure).short_heading, *cells, Text(one.change + sign, style=style), one.note)
    console.print(table)
    if not tests and not _difference(first, second, DATA_KEY):
        console.print(
            "No paired test was made: the predictions of both rows on the same images are needed; those of other "
            "workspaces are fetched where TUTELAGE_ARTIFACTS names the place that the team shares.",
            style="dim",
        )


def _written(figure: str, row: Row) -> str:
    """Write a figure with no more digits than its interval carries."""
    ends = [COLUMNS[f"{figure}{end}"].of(row) for end in ("_lo", "_hi")] if with_interval([figure]) else []
    return column(figure).write(column(figure).of(row), *ends)


def _difference(first: Row, second: Row, key: Sequence[str]) -> str:
    """Name the first part of a key in which two rows differ; "" where they agree in all."""
    parts = (name for name in key if getattr(first, name) != getattr(second, name))
    return next((column(name).name_for_people for name in parts), "")


def _change(column: Column, a: float, b: float) -> tuple[str, str]:
    """Give the change in words and its verdict; figures that are written alike are none the better."""
    if a == b:
        return "same", "same"
    verdict = "better" if (b > a) == (column.better == "max") else "worse"
    if column.better == "max":
        points = f"{100 * (b - a):+.1f}"
        return ("same to .1 point", "") if float(points) == 0 else (f"{points} points", verdict)
    if a <= 0 or b <= 0:
        return "", verdict
    ratio = max(a / b, b / a)
    if ratio < _LEAST_RATIO:
        return "same within 0.5 %", ""
    return f"{ratio:.2f} x {'less' if b < a else 'more'}", verdict


def _tested(name: str, verdict: str, tests: Sequence[Comparison]) -> tuple[str, str]:
    """Give the verdict on a quality: by the paired test alone, never by whether two intervals overlap."""
    for test in tests:
        if test.figure == name:
            return {"gained": "better", "lost": "worse"}.get(test.verdict, ""), test.text
    return ("same" if verdict == "same" else ""), "not tested"


def _is_tie(name: str, first: Row, second: Row) -> bool:
    """Say whether the spans of a cost meet; a count has none, so that any difference counts."""
    bounded = name in with_interval([name])
    ends = []
    for row in (first, second):
        values, low, high = (
            pareto.figures([row], f"{name}{end}") if bounded or not end else np.array([np.nan])
            for end in ("", "_lo", "_hi")
        )
        ends.append(span(name, values, low, high))
    return bool(ends[0][0] <= ends[1][1] and ends[1][0] <= ends[0][1])
