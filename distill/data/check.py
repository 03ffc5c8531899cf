"""Check data before a run does: what a file or folder holds, what is missing, unreadable, duplicate, or leaks.

`check_path` reports everything it finds instead of stopping at the first fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.records import InputError

from .dataset import DataReport, DatasetEntry, Request
from .images import decode, is_image
from .registry import DATASETS
from .splits import copies, one_hot, straddling_groups

_LAST = "folder"  # any folder may hold class folders, so it is tried when no other data set matches


def check_path(path: Path) -> DataReport:
    """Say what a path holds, faults and all, by the data set of the registry that recognises it.

    Raises InputError only when there is nothing to look at.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no data at {path}: give a MedMNIST .npz, a CSV, or a folder with one folder a class")
    entry, options = recognise(path)
    return entry.check(path) if entry.check is not None else _check_files(path, entry, options)


def recognise(path: Path) -> tuple[DatasetEntry, Mapping[str, Any]]:
    """Give the data set that a path looks like by what lies there, and the options with which it would be read."""
    for entry in sorted(DATASETS.values(), key=lambda entry: entry.name == _LAST):
        options = entry.recognise(path) if entry.recognise is not None else None
        if options is not None:
            return entry, options
    raise InputError(f"{path} is neither a MedMNIST .npz, nor a CSV, nor a folder")


def _check_files(path: Path, entry: DatasetEntry, options: Mapping[str, Any]) -> DataReport:
    problems = entry.faults(path) if entry.faults is not None else []
    if entry.list_files is None:
        raise InputError(f"{path} looks like data set {entry.name}, which has no check: load it in a run instead")
    try:
        listing = entry.list_files(Request(entry.name, path, 32, options=options))
    except InputError as error:
        return _bare_report(path, entry.name, [*problems, str(error)])
    unreadable, digests = _read_all(listing.paths)
    names = listing.names()
    doubles = copies([names[i] for i in digests], list(digests.values()))
    crossing = straddling_groups(listing.groups, listing.splits)
    problems += [f"{name} is listed and not there" for name in listing.missing]
    problems += unreadable
    problems += [f"{len(same)} copies of one file: {', '.join(same)}" for same in doubles]
    problems += [f"group {group} stands in more than one split" for group in crossing]
    counts = np.nansum(one_hot(listing.labels), axis=0).astype(int)
    return DataReport(
        path=str(path),
        kind=entry.name,
        num_images=len(listing.paths),
        class_counts=dict(zip(listing.class_names, (int(count) for count in counts), strict=True)),
        split_counts=dict(Counter(split or "(none)" for split in listing.splits.tolist())),
        num_groups=len(set(listing.groups.tolist())),
        unreadable=tuple(unreadable),
        missing=listing.missing,
        duplicates=doubles,
        leaking_groups=tuple(crossing),
        problems=tuple(problems),
        options=dict(options),
    )


def _read_all(paths: Sequence[Path]) -> tuple[list[str], dict[int, str]]:
    """Decode every file: what could not be read (one line each), and the content digest of the others."""
    unreadable: list[str] = []
    digests: dict[int, str] = {}
    for index, path in enumerate(paths):
        try:
            _, digests[index] = decode(path, 32)
        except InputError as error:
            unreadable.append(str(error))
    return unreadable, digests


def _bare_report(path: Path, kind: str, problems: list[str]) -> DataReport:
    """Report on data that cannot be listed: its files are read all the same, so that every fault is reported."""
    top = path if path.is_dir() else path.parent
    files = sorted(file for file in top.rglob("*") if is_image(file)) if path.is_dir() else []
    unreadable, _ = _read_all(files)
    return DataReport(
        path=str(path),
        kind=kind,
        num_images=len(files),
        class_counts={},
        unreadable=tuple(unreadable),
        problems=(*problems, *unreadable),
    )
