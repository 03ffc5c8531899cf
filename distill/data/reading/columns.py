"""Guess which columns of a table name files, classes and patients, where its headers are not the usual ones.

`guess_columns` gives options of the data set `table`, for what it is sure of; `guess_group_column` a column of ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tutelage.distill.data.containers.paths import is_file
from tutelage.records import InputError

from .ids import is_blank
from .paths import resolve_paths
from .tables import Table, read_table

GROUP_WORDS = re.compile(r"patient|subject|series|study|case|person", re.IGNORECASE)  # of headers, e.g. PatientID
NOT_IDS = re.compile(r"age|sex|gender|weight|date|description|position", re.IGNORECASE)  # e.g. "Patient Age"
_PEOPLE = re.compile(r"patient|subject|person", re.IGNORECASE)  # before a study or series of theirs
_LABEL = re.compile(r"(image|class|finding|disease|true|target|diagnosis)?[ _-]*"
                    r"(labels?|class(es)?|class[ _-]*name|category|target|diagnosis|dx|findings?|y|grade)",
                    re.IGNORECASE)  # fmt: skip
_TRIED = 20  # cells of a column that are looked up as files


def guess_columns(file: Path) -> dict[str, str]:
    """Give `path_column` and `label_column` of a table without columns `path` and `label`, where only one can be meant.

    The files' column is the one whose cells are files; the classes' has a usual name, or is the only one left.
    """
    try:
        table = read_table(file)
        path, label = table.find("path"), table.find("label")
    except InputError:  # whoever lists the table says it
        return {}
    found: dict[str, str] = {}
    if path is None:
        path = _only([place for place in range(len(table.header)) if _are_files(table, place)])
        if path is not None:
            found["path_column"] = table.header[path]
    if label is None and path is not None:
        others = [place for place, name in enumerate(table.header) if place != path and not _is_role(name)]
        named = [place for place in others if _LABEL.fullmatch(table.header[place].strip())]
        label = _only(named) if named else _only([place for place in others if _repeats(table.cells(place))])
        if label is not None:
            found["label_column"] = table.header[label]
    alike = [name for name in found.values() if table.header.count(name) > 1]
    return {} if alike else found


def guess_group_column(file: Path) -> str | None:
    """Name the column of patients, else of series or studies, in which ids stand more than once; None if unsure."""
    table = read_table(file)
    if table.find("group") is not None:
        return None
    ids = [place for place, name in enumerate(table.header) if is_id_name(name) and _repeats(table.cells(place))]
    of_people = [place for place in ids if _PEOPLE.search(table.header[place])]
    place = _only(of_people or ids)
    return None if place is None or table.header.count(table.header[place]) > 1 else table.header[place]


def is_id_name(name: str) -> bool:
    """Say whether a header is one of ids of patients or series."""
    return bool(GROUP_WORDS.search(name)) and not NOT_IDS.search(name)


def _is_role(name: str) -> bool:
    """Say whether a header is that of another role than the classes'."""
    return name.lower() in ("group", "split") or bool(GROUP_WORDS.search(name) or NOT_IDS.search(name))


def _are_files(table: Table, place: int) -> bool:
    cells = list(dict.fromkeys(cell for cell in table.cells(place) if cell))
    tried = cells[:: max(1, len(cells) // _TRIED)][:_TRIED]
    if not tried or len(cells) < len(table.rows) / 2:
        return False
    paths, _ = resolve_paths(tried, table.file.parent, look_above=True)
    return any(is_file(path) for path in paths)


def _repeats(cells: Sequence[str]) -> bool:
    """Say whether a column holds two values or more, each of which may name several images."""
    known = [cell for cell in cells if not is_blank(cell)]
    return 2 <= len(set(known)) <= len(known) / 2


def _only(places: Sequence[int]) -> int | None:
    return places[0] if len(places) == 1 else None
