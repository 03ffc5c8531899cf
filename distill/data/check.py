"""Check data before a run does, by the code that a run reads it with: what is there, missing, unreadable, or leaks.

`check_path` reports everything it finds instead of stopping at the first fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.records import InputError

from .assemble import arrange
from .cache import decode_all
from .containers.hub import fetch, is_hub_name
from .containers.packed import refuse_compressed
from .containers.paths import is_dir, is_file
from .containers.shards import is_pattern
from .dataset import DataReport, DatasetEntry, Request
from .images import decode
from .reading.folders import walk
from .registry import DATASETS
from .splits import copies, count_labels, straddling_groups

_SIZE = 32  # pixels that pictures are decoded to: a check keeps none of them
_KINDS = (
    "a MedMNIST .npz, a CSV, a folder or archive (.zip, .tar) with one folder a class, parquet files, WebDataset tars, "
    "or hf:owner/name"
)
_LAST = "folder"  # any folder may hold class folders, so it is tried when no other data set matches


def check_path(path: Path) -> DataReport:
    """Say what a path holds, faults and all, by the data set of the registry that recognises it.

    Raises InputError only when there is nothing to look at.
    """
    path = Path(path)
    if not is_there(path):
        raise InputError(f"no data at {path}: give {_KINDS}")
    entry, options = recognise(path)
    return entry.check(path) if entry.check is not None else _check_files(path, entry, options)


def is_there(path: Path) -> bool:
    """Say whether there may be data at a path: on the disk, in an archive, in shards that it names, or on the hub."""
    return path.exists() or is_hub_name(path) or is_pattern(path) or is_file(path) or is_dir(path)


def recognise(path: Path) -> tuple[DatasetEntry, Mapping[str, Any]]:
    """Give the data set that a path looks like by what lies there, and the options with which it would be read."""
    if is_hub_name(path):
        path = fetch(str(path)).folder
    for entry in sorted(DATASETS.values(), key=lambda entry: entry.name == _LAST):
        options = entry.recognise(path) if entry.recognise is not None else None
        if options is not None:
            return entry, options
    refuse_compressed(path)
    raise InputError(f"{path} is not {_KINDS}")


def _check_files(path: Path, entry: DatasetEntry, options: Mapping[str, Any]) -> DataReport:
    """List, decode and split as a run does at a small size; what makes a run stop is a problem, and nothing else."""
    if entry.list_files is None:
        raise InputError(f"{path} looks like data set {entry.name}, which has no check: load it in a run instead")
    problems = entry.faults(path) if entry.faults is not None else []
    request = Request(entry.name, path, _SIZE, options=options)
    try:
        listing = entry.list_files(request)
    except InputError as error:
        return _bare_report(path, entry.name, [*problems, str(error)])
    decoded = decode_all(listing, request)
    names = listing.names()
    read = [index for index in range(len(names)) if index not in decoded.errors]
    doubles = copies([names[index] for index in read], [str(decoded.digests[index]) for index in read])
    crossing = straddling_groups(listing.groups, listing.splits)
    problems += [f"{name} is listed and not there" for name in listing.missing]
    problems += decoded.errors.values()
    notes: list[str] = []
    try:
        good = np.array(read, dtype=np.int64)
        notes += arrange(listing.take(good), decoded.readable(), request).notes if read else listing.notes
    except InputError as error:
        problems.append(str(error))
        notes += listing.notes
    notes += [f"{len(same)} copies of one file: {', '.join(same)}" for same in doubles]
    notes += [f"group {group} stands in more than one split" for group in crossing]
    return DataReport(
        path=str(path),
        kind=entry.name,
        num_images=len(listing.paths),
        class_counts=count_labels(listing.labels, listing.class_names),
        split_counts=dict(Counter(split or "(none)" for split in listing.splits.tolist())),
        num_groups=len(set(listing.groups.tolist())),
        unreadable=tuple(decoded.errors.values()),
        missing=listing.missing,
        duplicates=doubles,
        leaking_groups=tuple(crossing),
        problems=tuple(problems),
        notes=tuple(notes),
        facts=listing.facts,
        options=dict(options),
    )


def _bare_report(path: Path, kind: str, problems: list[str]) -> DataReport:
    """Report on data that cannot be listed: its files are read all the same, so that every fault is reported."""
    files = walk(path).pictures if path.is_dir() else ()
    unreadable = []
    for file in files:
        try:
            decode(file, _SIZE)
        except InputError as error:
            unreadable.append(str(error))
    return DataReport(
        path=str(path),
        kind=kind,
        num_images=len(files),
        class_counts={},
        unreadable=tuple(unreadable),
        problems=(*problems, *unreadable),
    )
