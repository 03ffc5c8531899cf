"""Any CSV that lists images: a path, one label or more (multi-label), and optionally a group and a split.

Also functions common to the sets of chest X-ray tables: reading rows by position, laying label words out in columns,
and setting aside rows whose file is absent.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.data.dataset import DatasetEntry, Listing, Request
from tutelage.records import InputError

from .folders import NEAR_HELP, SPLIT_FOLDERS

_NO_LABEL = ("", "nan", "none", "null", "na", "n/a")


def list_table(request: Request) -> Listing:
    """List the images of a CSV at `path`: columns `path`, `label`, `group`, `split`, unless options name others."""
    file = request.where()
    if file.is_dir():
        raise InputError(f"{file} is a folder: data set {request.name} needs a CSV file")
    header, rows = read_csv(file)
    root = Path(request.option("root", file.parent))
    path_at = _column(file, header, str(request.options.get("path_column", "path")))
    group_at = _optional(file, header, request, "group")
    split_at = _optional(file, header, request, "split")
    paths = [root / row[path_at] for row in rows]
    labels, class_names, multi_label = _labels(file, header, rows, request)
    groups = [row[group_at] for row in rows] if group_at is not None else [row[path_at] for row in rows]
    given = [_split(file, number, row[split_at]) if split_at is not None else "" for number, row in enumerate(rows, 2)]
    listing = Listing(
        root=root,
        paths=tuple(paths),
        labels=labels,
        class_names=class_names,
        groups=np.array(groups, dtype=np.str_),
        splits=np.array(given, dtype="<U5"),
        multi_label=multi_label,
        near_duplicates=request.near(),
    )
    return keep_present(listing)


def read_csv(file: Path) -> tuple[list[str], list[list[str]]]:
    """Read a CSV's header and rows (a byte-order mark and blank lines are dropped).

    Every row has the cells of the header: a truncated row, or one with a comma that is not quoted, would put a value
    under another column's name, and is an InputError with its line. Empty cells at the end may be too many.
    """
    if not file.is_file():
        raise InputError(f"no table at {file}")
    rows: list[list[str]] = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.reader(handle)
            for row in reader:
                if row and rows:
                    row = _fitted(row, len(rows[0]), file, reader.line_num)
                rows += [row] if row else []
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} is not a CSV in UTF-8: {error}") from None
    if len(rows) < 2:
        raise InputError(f"{file} holds no rows")
    return rows[0], rows[1:]


def _fitted(row: list[str], width: int, file: Path, line: int) -> list[str]:
    """Drop empty cells beyond the header; refuse a row of another length."""
    while len(row) > width and not row[-1]:
        row = row[:-1]
    if len(row) != width:
        raise InputError(
            f"{file}, line {line}: {len(row)} cells, and the header has {width}; "
            + ("quote a cell that holds a comma" if len(row) > width else "the row is truncated")
        )
    return row


def keep_present(listing: Listing) -> Listing:
    """Set aside the rows whose file is not there; all absent is an error."""
    present = np.array([path.is_file() for path in listing.paths], dtype=bool)
    if not present.any():
        first = listing.paths[0] if listing.paths else listing.root
        raise InputError(f"none of the {len(listing.paths)} listed images is there, e.g. {first}: check the path")
    if present.all():
        return listing
    names = listing.names()
    missing = tuple(names[index] for index in np.flatnonzero(~present))
    kept = listing.take(np.flatnonzero(present))
    return Listing(**{**kept.__dict__, "missing": missing})


def word_columns(words: Iterable[Sequence[str]], class_names: Sequence[str]) -> NDArray[np.float32]:
    """Lay label words out as 0/1 columns `(n, L)`; words that name no column are left out."""
    place = {name: number for number, name in enumerate(class_names)}
    rows = list(words)
    columns = np.zeros((len(rows), len(class_names)), dtype=np.float32)
    for number, found in enumerate(rows):
        for word in found:
            if word in place:
                columns[number, place[word]] = 1
    return columns


def _labels(
    file: Path, header: list[str], rows: list[list[str]], request: Request
) -> tuple[NDArray[np.int64] | NDArray[np.float32], tuple[str, ...], bool]:
    columns = request.options.get("label_columns")
    if columns:
        places = [_column(file, header, str(name)) for name in columns]
        values = np.empty((len(rows), len(places)), dtype=np.float32)
        for number, row in enumerate(rows):
            for column, place in enumerate(places):
                values[number, column] = _zero_or_one(file, number + 2, header[place], row[place])
        return values, tuple(str(name) for name in columns), True
    place = _column(file, header, str(request.options.get("label_column", "label")))
    words = [row[place].strip() for row in rows]
    for number, word in enumerate(words, 2):
        if word.lower() in _NO_LABEL:
            raise InputError(f"{file}, line {number}: label {word!r} is missing or NaN: give one or remove the row")
    names = tuple(sorted({part.strip() for word in words for part in word.split("|")}))
    if len(names) < 2:
        raise InputError(f"{file}: column {header[place]} holds one class only ({names[0]}): needs two")
    if any("|" in word for word in words):
        return word_columns([[part.strip() for part in word.split("|")] for word in words], names), names, True
    index = {name: number for number, name in enumerate(names)}
    return np.array([index[word] for word in words], dtype=np.int64), names, False


def _zero_or_one(file: Path, line: int, column: str, text: str) -> float:
    if text.strip() in ("0", "0.0", "1", "1.0"):
        return float(text)
    raise InputError(f"{file}, line {line}: {column} is {text!r}: labels must be 0 or 1")


def _split(file: Path, line: int, word: str) -> str:
    if word.strip() == "":
        return ""
    if word.strip().lower() not in SPLIT_FOLDERS:
        raise InputError(f"{file}, line {line}: split {word!r} is not train, val or test")
    return SPLIT_FOLDERS[word.strip().lower()]


def _column(file: Path, header: list[str], name: str) -> int:
    if name not in header:
        raise InputError(f"{file} has no column {name!r}; it has {', '.join(header)}")
    return header.index(name)


def _optional(file: Path, header: list[str], request: Request, role: str) -> int | None:
    """Find a column that may be absent, unless an option names it."""
    named = request.options.get(f"{role}_column")
    if named is None:
        return header.index(role) if role in header else None
    return _column(file, header, str(named))


TABLE = DatasetEntry(
    "table",
    "A CSV that lists images with one label or several, and, where there are, a group and a split.",
    list_table,
    options={
        "path_column": "column of the files' paths (default path)",
        "label_column": "column of the class, or of multi-label words joined by | (default label)",
        "label_columns": "a list of 0/1 columns instead, one a label",
        "group_column": "column of the patient or series (default group, where there is one)",
        "split_column": "column of train, val or test (default split, where there is one)",
        "root": "folder that paths are relative to (default: the CSV's)",
        "near": NEAR_HELP,
    },
    recognise=lambda path: {} if path.is_file() and path.suffix.lower() == ".csv" else None,
)
