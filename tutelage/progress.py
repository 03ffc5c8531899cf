"""Progress of a long run on standard error: a bar on a terminal, plain lines elsewhere.

`reporting` gives the callable for it, e.g. `report("teacher densenet121", 3, 10)`; standard output is for results.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Report = Callable[[str, int, int], None]

# Seconds between two lines in a log file.
_PLAIN_SECONDS = 15.0


def silent(text: str, done: int, total: int) -> None:
    """Report nothing; for callers that need no progress."""


@contextmanager
def reporting(console: Console | None = None) -> Iterator[Report]:
    """Give a `report(text, done, total)` that draws a bar on a terminal and prints lines elsewhere."""
    console = console or Console(stderr=True, markup=False)
    if not console.is_terminal:
        yield _plain(console)
        return
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), *times)
    with Progress(*columns, console=console) as bar:
        yield _barred(bar)


def _barred(bar: Progress) -> Report:
    """Draw one bar for what is going on; what is done becomes a line above it."""
    tasks: dict[str, TaskID] = {}
    began: dict[str, float] = {}

    def report(text: str, done: int, total: int) -> None:
        if text not in tasks:
            tasks[text] = bar.add_task(text, total=total)
            began[text] = time.monotonic()
        bar.update(tasks[text], completed=done, total=total)
        if done >= total:
            bar.remove_task(tasks.pop(text))
            seconds = time.monotonic() - began[text]
            bar.console.print(f"{text}: {total} in {seconds:.0f} s", highlight=False, markup=False, soft_wrap=True)

    return report


def _plain(console: Console) -> Report:
    began: dict[str, float] = {}
    last: dict[str, float] = {}

    def report(text: str, done: int, total: int) -> None:
        now = time.monotonic()
        began.setdefault(text, now)
        finished = done >= total
        if not finished and now - last.get(text, -_PLAIN_SECONDS) < _PLAIN_SECONDS:
            return
        last[text] = now
        seconds = now - began[text]
        left = f", about {seconds * (total - done) / done:.0f} s left" if done and not finished and seconds >= 1 else ""
        console.print(f"{text}: {done}/{total} ({seconds:.0f} s{left})", highlight=False, markup=False, soft_wrap=True)

    return report
