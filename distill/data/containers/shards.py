"""Shards of a data set: where they lie, which split each belongs to, whether one is missing, and their `Listing`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.distill.data.dataset import Listing, Request
from tutelage.distill.data.reading.folders import SPLIT_FOLDERS, is_system
from tutelage.distill.data.reading.ids import group_ids
from tutelage.distill.data.reading.labels import Labels
from tutelage.records import InputError

# `train-00000-of-00002`, and as the hub wrote it until 2023, `train-00000-of-00002-1a2b3c4d5e6f7a8b`.
_NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{8,40})?")
_BRACES = re.compile(r"\{([^{}]*)\}")
_MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Shard:
    """One file and the split that it belongs to ("" is not said)."""

    file: Path
    split: str


def find_shards(root: Path, suffix: str, most_folders: int | None = None) -> list[Path]:
    """Find the files of a suffix below a folder, sorted, without those in folders of the system.

    `most_folders` is how many folders below the root may lead to them.
    """
    depths = None if most_folders is None else range(most_folders + 1)
    patterns = [f"**/*{suffix}"] if depths is None else ["*/" * depth + f"*{suffix}" for depth in depths]
    found = (file for pattern in patterns for file in root.glob(pattern))
    return sorted(file for file in found if not any(map(is_system, file.relative_to(root).parts)))


def listing_of(
    request: Request,
    root: Path,
    paths: Sequence[Path],
    splits: Sequence[str],
    labels: Labels,
    ids: Sequence[Any] | None,
    *,
    notes: Sequence[str],
    facts: Mapping[str, int],
    origin: str,
) -> Listing:
    """List the images of shards: a path, a split and, by `ids`, a group each, of which `labels` keeps some.

    ids: what the option `group` names, of each image; None where it names nothing, and each is a group of its own.
    """
    names = [path.relative_to(root).as_posix() for path in paths]
    groups, group_notes = np.array(names, dtype=np.str_), tuple[str, ...]()
    if ids is not None:
        texts = ["" if value is None else str(value) for value in ids]
        groups, group_notes = group_ids(texts, names, str(request.option("group", "")))
    return Listing(
        root=root,
        paths=tuple(paths[row] for row in labels.kept),
        labels=labels.values,
        class_names=labels.class_names,
        groups=groups[labels.kept],
        splits=np.array([splits[row] for row in labels.kept], dtype="<U5"),
        multi_label=labels.multi_label,
        near_duplicates=request.near(),
        notes=(*([f"read from the hub: {origin}"] if origin else []), *notes, *labels.notes, *group_notes),
        facts=facts,
        origin=origin,
    )


def split_word(text: str) -> str:
    """Find a split's word in a name, between what is no letter: `train-00000-of-00001`, `partial-train`."""
    words = [word for word in re.split(r"[^a-z]+", text.lower()) if word in SPLIT_FOLDERS]
    return SPLIT_FOLDERS[words[0]] if words else ""


def assign_splits(
    files: Sequence[Path], root: Path, named: Callable[[str], str] = lambda name: ""
) -> tuple[list[Shard], list[str]]:
    """Give each file the split that `named` says of its path below `root`, else its name, else its folders.

    Where some files have a split, those of no such split (`extra`, `unsupervised`) are left out, which notes say. What
    `named` gives is the split's whole name: one that is none of ours (`unlabelled`) is not looked for in file names.
    Raises InputError for a numbered shard that is not there.
    """
    shards = []
    for file in files:
        inner = file.relative_to(root)
        said = named(inner.as_posix())
        words = map(split_word, (said,) if said else reversed(inner.parts))
        shards.append(Shard(file, next(filter(None, words), "")))
    notes = []
    if any(shard.split for shard in shards):
        others = [shard.file.name for shard in shards if not shard.split]
        shards = [shard for shard in shards if shard.split]
        if others:
            notes.append(f"{len(others)} files of no train, validation or test split are left out, e.g. {others[0]}")
    _check_whole(shards)
    return shards, notes


def _check_whole(shards: Sequence[Shard]) -> None:
    """Refuse a split of which a shard is not there: `-00000-of-00002` beside no `-00001-of-00002`."""
    seen: dict[tuple[Path, str, str, str], set[int]] = {}
    for shard in shards:
        if found := _NUMBERED.fullmatch(shard.file.stem):
            seen.setdefault((shard.file.parent, found[1], found[3], shard.file.suffix), set()).add(int(found[2]))
    for (folder, name, total, suffix), numbers in seen.items():
        lacking = next((number for number in range(int(total)) if number not in numbers), None)
        if lacking is not None:
            raise InputError(f"{folder / f'{name}-{lacking:05d}-of-{total}{suffix}'} is not there: only {len(numbers)} "
                             f"of {int(total)} shards are; add the others")  # fmt: skip


def is_pattern(path: Path) -> bool:
    """Tell names of several shards, `train-{000..146}.tar`, from a path."""
    return "{" in path.name and not path.exists()


def expand_braces(pattern: str) -> list[str]:
    """Write out `train-{000..146}.tar` and `{train,val}.tar` as shells do; a text without braces is itself."""
    parts: list[list[str]] = []
    number = 1
    for index, text in enumerate(_BRACES.split(pattern)):
        options = list(_options(text)) if index % 2 else [text]
        number *= len(options)
        if number > _MOST_SHARDS:
            raise InputError(f"{pattern} names more than {_MOST_SHARDS} files")
        parts.append(options)
    return ["".join(chosen) for chosen in product(*parts)]


def _options(text: str) -> Iterable[str]:
    found = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", text)
    if found is None:
        return text.split(",")
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < _MOST_SHARDS:
        raise InputError(f"{{{text}}} is not first..last with at most {_MOST_SHARDS} numbers")
    return (f"{number:0{len(found[1])}d}" for number in range(first, last + 1))
