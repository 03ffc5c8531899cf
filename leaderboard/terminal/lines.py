"""Print a table a line for each row (`print_lines`): without rich's layout where it fits the terminal.

rich measures, wraps and styles each cell by itself: of 200 rows it took longer than to find them among a million.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tutelage.leaderboard.columns import COLUMNS

if TYPE_CHECKING:
    from rich.console import Console

# Blanks between two columns.
GAP = 2
_MARKED = "bold green"


def heading(name: str) -> str:
    """Give the heading of a column; the mark of the front has none."""
    return "" if name == "on_front" else COLUMNS[name].short_heading


def print_lines(cells: Mapping[str, Sequence[str]], marked: Sequence[bool], console: Console, title: str = "") -> None:
    """Print columns of cells under their headings, figures to the right, marked rows in green.

    A table with a title, or wider than the terminal, is laid out by rich.
    """
    from rich.cells import cell_len
    from rich.segment import Segment, Segments

    widths = {name: max(map(cell_len, (heading(name), *column))) for name, column in cells.items()}
    if title or sum(widths.values()) + GAP * (len(widths) - 1) > console.width:
        _laid_out(cells, marked, console, title)
        return
    columns = []
    for name, column in cells.items():
        width, is_right = widths[name], COLUMNS[name].is_number
        blanks = [" " * (width - cell_len(cell)) for cell in (heading(name), *column)]
        texts = zip((heading(name), *column), blanks, strict=True)
        columns.append([blank + cell if is_right else cell + blank for cell, blank in texts])
    styles = [console.get_style("table.header"), *(console.get_style(_MARKED if one else "none") for one in marked)]
    joined = [(" " * GAP).join(row) for row in zip(*columns, strict=True)]
    lines = zip(joined, styles, strict=True)
    console.print(Segments([part for text, style in lines for part in (Segment(text, style), Segment.line())]))


def _laid_out(cells: Mapping[str, Sequence[str]], marked: Sequence[bool], console: Console, title: str) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, title=Text(title) if title else None, title_justify="left", pad_edge=False, padding=(0, 1))
    for name in cells:
        table.add_column(heading(name), justify="right" if COLUMNS[name].is_number else "left", no_wrap=True)
    for place, is_marked in enumerate(marked):
        # Text, not str: a model name with [brackets] is a name, not markup.
        table.add_row(*(Text(column[place]) for column in cells.values()), style=_MARKED if is_marked else "")
    console.print(table)
