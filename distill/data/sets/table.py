"""Any CSV that lists images: a path, one label or more (multi-label), and optionally a group and a split.

Also functions common to the sets of chest X-ray tables: laying label words out in columns, and setting aside rows whose
file is absent. How tables, paths, ids and labels may be written is decided in `tutelage.distill.data.reading`.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.data.containers.naming import own_name
from tutelage.distill.data.containers.paths import is_dir, is_file
from tutelage.distill.data.dataset import DatasetEntry, Listing, Request
from tutelage.distill.data.reading.columns import guess_columns, is_id_name
from tutelage.distill.data.reading.dicom_listing import with_heads
from tutelage.distill.data.reading.folders import SPLIT_FOLDERS
from tutelage.distill.data.reading.ids import group_ids, is_blank
from tutelage.distill.data.reading.labels import (
    MULTI_LABEL_HELP,
    UNKNOWN_HELP,
    Labels,
    notes_on_names,
    plain_word,
    read_classes,
    read_columns,
    unknown_policy,
)
from tutelage.distill.data.reading.paths import resolve_paths
from tutelage.distill.data.reading.tables import Table, is_table, read_table
from tutelage.records import InputError

from .folders import NEAR_HELP

_LIST = re.compile(r"\[.*\]", re.DOTALL)  # a cell that lists labels


def list_table(request: Request) -> Listing:
    """List the images of a CSV at `path`: columns `path`, `label`, `group`, `split`, unless options name others."""
    file = request.where()
    if is_dir(file):
        raise InputError(f"{file} is a folder: data set {request.name} needs a CSV file")
    table = read_table(file)
    path_at = _required(table, request, "path", "path_column")
    listed = table.cells(path_at)
    if "" in listed:
        raise InputError(f"{table.where(listed.index(''))}: {table.header[path_at]} is blank: name a file, or remove "
                         "the row")  # fmt: skip
    labels = _labels(table, request)
    root = Path(request.option("root", file.parent))
    paths, path_notes = resolve_paths(listed, root, look_above="root" not in request.options)
    groups, group_notes = _groups(table, listed, request)
    split_at = _optional(table, request, "split")
    given = [""] * len(listed) if split_at is None else [_split(table, row, split_at) for row in range(len(listed))]
    kept, repeats = _first_listed(table, paths, labels)
    listing = Listing(
        root=root,
        paths=tuple(paths[row] for row in labels.kept[kept]),
        labels=labels.values[kept],
        class_names=labels.class_names,
        groups=groups[labels.kept[kept]],
        splits=np.array([given[row] for row in labels.kept[kept]], dtype="<U5"),
        multi_label=labels.multi_label,
        near_duplicates=request.near(),
        notes=(*table.notes, *labels.notes, *path_notes, *group_notes, *repeats),
    )
    return with_heads(keep_present(listing), grouped=_optional(table, request, "group") is not None)


def keep_present(listing: Listing) -> Listing:
    """Set aside the rows whose file is not there; all absent is an error."""
    present = np.array([is_file(path) for path in listing.paths], dtype=bool)
    if not present.any():
        first = listing.paths[0] if listing.paths else listing.root
        remedy = f"{_packed(listing.root)}check the path"
        raise InputError(f"none of the {len(listing.paths)} listed images is there, e.g. {first}: {remedy}")
    if present.all():
        return listing
    names = listing.names()
    missing = tuple(names[index] for index in np.flatnonzero(~present))
    return replace(listing.take(np.flatnonzero(present)), missing=missing)


def _packed(root: Path) -> str:
    """Name the compressed tars below a folder: their members cannot be reached without unpacking all before them."""
    found = sorted(path.name for pattern in ("*.tar.gz", "*/*.tar.gz", "*.tgz") for path in root.glob(pattern))
    return f"unpack {found[0]} (of {len(found)} such archives), or " if found else ""


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


def _labels(table: Table, request: Request) -> Labels:
    """Read the column of classes or joined words, or the 0/1 columns that the option `label_columns` names."""
    unknown = unknown_policy(request.option("unknown", "refuse"))
    multi_label = request.option("multi_label", None)
    columns = request.options.get("label_columns")
    if columns:
        places = [table.column(str(name)) for name in columns]
        cells = [[row[place] for place in places] for row in table.rows]
        names = [str(name) for name in columns]
        what = f"{table.file.name}: {', '.join(names)}"
        return read_columns(cells, names, table.where, what, unknown, multi_label)
    if multi_label is not None:
        raise InputError(f"multi_label: {multi_label} has no effect without label_columns: leave it out")
    place = _required(table, request, "label", "label_column (or label_columns, of 0/1 columns)")
    words = table.cells(place)
    what = f"{table.file}: column {table.header[place]}"
    if any(_LIST.fullmatch(word) for word in words):
        words = [_joined(word, table.where(row)) for row, word in enumerate(words)]
    elif not any("|" in word for word in words):
        return read_classes(words, table.where, what, unknown)
    parts = [[plain_word(part) for part in word.split("|") if part.strip()] for word in words]
    blank = [row for row, found in enumerate(parts) if not found or (len(found) == 1 and is_blank(found[0]))]
    if blank and unknown != "drop":
        raise InputError(f"{table.where(blank[0])}: label {words[blank[0]]!r} is missing or NaN: give one, or remove "
                         "the row, or set the option unknown to drop")  # fmt: skip
    kept = np.setdiff1d(np.arange(len(words)), blank)
    names = sorted({part for row in kept for part in parts[row]})
    notes = [f"{len(blank)} images whose label is not known are left out"] if blank else []
    notes += notes_on_names(names)
    return Labels(word_columns([parts[row] for row in kept], names), tuple(names), kept, tuple(notes))


def _joined(word: str, where: str) -> str:
    """Join the labels of a cell that is a list (`['A', 'B']`, as pandas writes one) by |."""
    try:
        listed = ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        listed = None
    if not isinstance(listed, list) or not all(isinstance(one, str | int) for one in listed):
        raise InputError(f"{where}: label {word[:60]!r} stands among lists and is no list of labels: join labels by |")
    return "|".join(str(one).replace("|", "/") for one in listed)


def _groups(table: Table, listed: Sequence[str], request: Request) -> tuple[NDArray[np.str_], tuple[str, ...]]:
    """Group the images by the column of patients or series; without one each is a group of its own."""
    place = _optional(table, request, "group")
    if place is None:
        return np.array(listed, dtype=np.str_), _unread_ids(table)
    return group_ids([row[place] for row in table.rows], listed, table.header[place])


def _unread_ids(table: Table) -> tuple[str, ...]:
    """Note columns that look like ids of patients or series and are not read: their images may leak across splits."""
    notes = []
    for place, name in enumerate(table.header):
        if not is_id_name(name):
            continue
        ids = [cell for cell in table.cells(place) if not is_blank(cell)]
        if len(set(ids)) < len(ids):
            notes.append(f"column {name} holds {len(set(ids))} ids for {len(ids)} images and is not read: set the "
                         f"option group_column to {name}, or one of them may stand in several splits")  # fmt: skip
    return tuple(notes)


def _first_listed(table: Table, paths: Sequence[Path], labels: Labels) -> tuple[list[int], tuple[str, ...]]:
    """Keep the first of the rows that list one file, however its path is written; other labels are an error."""
    first: dict[str, int] = {}
    kept: list[int] = []
    for index, row in enumerate(labels.kept.tolist()):
        before = first.setdefault(os.path.abspath(paths[row]), index)
        if before == index:
            kept.append(index)
        elif not np.array_equal(labels.values[before], labels.values[index], equal_nan=True):
            raise InputError(f"{table.where(row)}: {paths[row]} has another label than on line "
                             f"{table.lines[labels.kept[before]]}: correct or remove one")  # fmt: skip
    num_repeats = len(labels.kept) - len(kept)
    return kept, (f"{num_repeats} rows list a file again and are read once",) if num_repeats else ()


def _split(table: Table, row: int, place: int) -> str:
    word = table.rows[row][place].strip().lower()
    if is_blank(word):
        return ""
    if word not in SPLIT_FOLDERS:
        raise InputError(f"{table.where(row)}: split {word!r} is not train, val or test")
    return SPLIT_FOLDERS[word]


def _required(table: Table, request: Request, role: str, options: str) -> int:
    """Find a column by its usual name, or by the one that an option gives; without either name the option."""
    named = request.options.get(f"{role}_column")
    place = table.find(role) if named is None else table.column(str(named))
    if place is None:
        raise InputError(f"{table.file} has no column {role!r}; it has {', '.join(table.header)}: call one so, or "
                         f"name it by the option {options}")  # fmt: skip
    return place


def _optional(table: Table, request: Request, role: str) -> int | None:
    """Find a column that may be absent, unless an option names it."""
    named = request.options.get(f"{role}_column")
    return table.find(role) if named is None else table.column(str(named))


TABLE = DatasetEntry(
    "table",
    "A CSV or TSV that lists images with their class or labels, and, where there are, a group and a split.",
    list_table,
    options={
        "path_column": "column of the files' paths (default path)",
        "label_column": "column of the class, or of multi-label words joined by | (default label)",
        "label_columns": "a list of 0/1 columns instead, one a label",
        "group_column": "column of the patient or series (default group, where there is one); 100 and 100.0 are one",
        "split_column": "column of train, val or test (default split, where there is one)",
        "root": "folder that paths are relative to (default: the CSV's)",
        "unknown": UNKNOWN_HELP,
        "multi_label": MULTI_LABEL_HELP,
        "near": NEAR_HELP,
    },
    recognise=lambda path: guess_columns(path) if is_table(path) else None,
    called=lambda request: own_name(request.path),
)
