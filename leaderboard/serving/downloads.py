"""Files of rows that a reader may take (`Download`): the model, a bundle, the figures as CSV."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from tutelage.leaderboard.export import pieces
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.store.ranking import row_parts

# The address of a file of a row: its whole id, and one of three words.
_PATH = re.compile(r"/rows/(?P<row>[0-9A-Za-z-]{1,80})/(?P<what>model|bundle|figures\.csv)")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
_MOST_NAME = 60


class Wanted(NamedTuple):
    """What an address names: a row by its whole id, and `model`, `bundle` or `figures.csv`."""

    row_id: str
    what: str


class AbsentError(Exception):
    """What was asked for is not here; the text is for the reader, and names no place of the server."""


class BusyError(Exception):
    """What was asked for cannot be made now; the text is for the reader."""


@dataclass(frozen=True)
class Download:
    """A file that is open, and what a browser must know of it; `name` is made by `safe_name`."""

    name: str
    kind: str
    size: int
    content: BinaryIO


# Gives the model or the bundle of a row, by its id; AbsentError where there is none.
Find = Callable[[str, str], Download]
# Makes the bundle of a row that `find` does not have; AbsentError where it cannot be, BusyError where not now.
Make = Callable[[str], None]


def nothing(row_id: str, what: str) -> Download:
    """Say of any row that its files are not here: of a board without a workspace."""
    raise AbsentError(f"no {what} of row {row_id[:8]} is here")


def wanted(path: str) -> Wanted | None:
    """Read an address; None for one that names no file of a row."""
    found = _PATH.fullmatch(path)
    return None if found is None else Wanted(found["row"], found["what"])


def figures_csv(store: Store, row_id: str) -> tuple[str, str]:
    """Give the name of the file and the line of the export that a row has, under its heading."""
    text = "".join(pieces(row_parts(store, row_id), "csv"))
    if text.count("\n") < 2:
        raise AbsentError(f"no row {row_id[:8]} is on the board: it may be superseded or retracted")
    return safe_name(f"row-{row_id[:8]}", ".csv"), text


def safe_name(name: str, suffix: str) -> str:
    """Make a file's name of what users may have named: ASCII, no folder, never hidden, never without a stem."""
    stem = _UNSAFE.sub("-", name).strip("-.")[:_MOST_NAME] or "file"
    return stem + (_UNSAFE.sub("", suffix)[:20])
