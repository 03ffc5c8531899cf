"""Architectures against devices in the terminal: `show_matrix`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tutelage.leaderboard.columns import Column
from tutelage.leaderboard.comparisons.matrix import Cell, Matrix, State

from .table import cut_apart, printable

if TYPE_CHECKING:
    from rich.console import Console

_SIGNS: Mapping[State, str] = {"pending": "pending", "failed": "failed", "absent": "-", "never": "not run"}
_WORDS: Mapping[State, str] = {
    **{"imported": "(imported)", "failed": "failed", "pending": "pending", "predicted": "~ predicted"},
    "absent": "- not measured",
}
_NAME_WIDTH, _HEAD_WIDTH = 34, 18
_LISTED = 6  # reasons below a table


def written(figure: Column, cell: Cell) -> str:
    """Write a cell for people: the figure, rounded to its interval, or the sign of its state."""
    if cell.value is not None:
        text = figure.write(int(cell.value) if figure.is_whole else cell.value, *cell.ends)
        return f"({text})" if cell.state == "imported" else text
    return f"~{cell.reason.split(' ms ')[0]}" if cell.state == "predicted" and " ms " in cell.reason else _sign(cell)


def _sign(cell: Cell) -> str:
    return "predicted" if cell.state == "predicted" else _SIGNS[cell.state]


def show_matrix(matrix: Matrix, console: Console) -> None:
    """Print a matrix: the devices that fit the terminal, and below it those that do not and why cells are empty."""
    from rich.table import Table
    from rich.text import Text

    figure, lines = matrix.figure, matrix.lines
    names = cut_apart([printable(("  " if line.of else "") + line.name) for line in lines], _NAME_WIDTH)
    heads = [[_fold(printable(part)) for part in device] for device in matrix.devices]
    cells = [[written(figure, line.cells[n]) for line in lines] for n in range(len(heads))]
    widths = [
        max(map(len, ("", *"\n".join(head).split("\n"), *some))) + 2 for head, some in zip(heads, cells, strict=True)
    ]
    room = console.width - max(map(len, ("architecture", *names))) - 9
    shown: list[int] = []
    for n, width in enumerate(widths):
        if width > room and shown:
            break
        room -= width
        shown.append(n)
    words = f"{figure.heading} on {printable(matrix.place)}"
    console.print(Text(words, style="bold"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("architecture", no_wrap=True)
    table.add_column("files", justify="right", no_wrap=True)
    for n in shown:
        table.add_column(Text("\n".join(part for part in heads[n] if part)), justify="right", no_wrap=True)
    for place, line in enumerate(lines):
        files = "" if line.of else str(line.num_files)
        table.add_row(
            Text(names[place]), files, *(Text(cells[n][place]) for n in shown), style="dim" if line.of else ""
        )
    console.print(table)
    for text in _notes(matrix, shown):
        console.print(Text(printable(text), style="dim"), soft_wrap=True)


def _fold(text: str) -> str:
    """Break a heading between its words into lines of `_HEAD_WIDTH`, so that a long device name costs little width."""
    lines = [""]
    for word in text.split(" "):
        is_full = lines[-1] and len(lines[-1]) + len(word) + 1 > _HEAD_WIDTH
        lines[len(lines) - (not is_full) :] = [word if is_full or not lines[-1] else f"{lines[-1]} {word}"]
    return "\n".join(lines)


def _notes(matrix: Matrix, shown: Sequence[int]) -> list[str]:
    cells = [(line, n, cell) for line in matrix.lines if not line.of for n, cell in enumerate(line.cells)]
    states = {cell.state for _, _, cell in cells}
    notes = ["A cell is the best of the architecture's files there; --open lists each."]
    if signs := [words for state, words in _WORDS.items() if state in states]:
        notes.append(" · ".join(signs))
    reasons = [
        f"{line.name} on {matrix.devices[n][0]}: {cell.reason}"
        for line, n, cell in cells
        if cell.state in ("failed", "pending", "predicted")
    ]
    notes += reasons[:_LISTED]
    if len(reasons) > _LISTED:
        notes.append(f"and {len(reasons) - _LISTED} more: --out FILE.csv has all")
    if hidden := [name for n, (name, _) in enumerate(matrix.devices) if n not in shown]:
        notes.append(f"{len(hidden)} devices do not fit: {', '.join(hidden)}; --filter device=NAME or --out FILE.csv")
    return notes
