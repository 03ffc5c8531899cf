"""Look at data before a run does: what a file or folder holds, what is missing, unreadable, double, or leaks.

Enters: a path. Leaves: a `DataReport`, which says everything it found instead of stopping at the first fault.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.records import InputError

from .dataset import Listing, Request
from .folders import cxr3_group, find_split_folders, list_folder
from .images import decode, is_image
from .medmnist import read_archive
from .splits import straddling_groups


@dataclass(frozen=True)
class DataReport:
    """What was found at a path. `problems` are one line each and empty when a run may use the data as it is."""

    path: str
    kind: str
    num_images: int
    class_counts: dict[str, int]
    split_counts: dict[str, int] = field(default_factory=dict)
    num_groups: int = 0
    unreadable: tuple[str, ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()
    leaking_groups: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_path(path: Path) -> DataReport:
    """Say what a MedMNIST archive or a folder of classes holds; raises InputError only when nothing is there."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"no data at {path}: give a MedMNIST .npz or a folder with one folder a class")
    if path.is_file() and path.suffix == ".npz":
        return _check_archive(path)
    if path.is_dir():
        return _check_folder(path)
    raise InputError(f"{path} is neither a MedMNIST .npz nor a folder with one folder a class")


def _check_archive(path: Path) -> DataReport:
    images, labels, given = read_archive(path)
    digests = [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in images]
    names = [f"{split}/{i}" for i, split in enumerate(given.tolist())]
    doubles = _duplicates(names, digests)
    crossing = straddling_groups(np.array(digests), given)
    classes = Counter(labels.tolist()) if labels.ndim == 1 else dict(enumerate(labels.sum(axis=0).astype(int).tolist()))
    problems = [f"{len(crossing)} images stand in more than one split (a load leaves the earlier copies out)"]
    return DataReport(
        path=str(path),
        kind="medmnist",
        num_images=len(images),
        class_counts={str(key): int(value) for key, value in sorted(classes.items())},
        split_counts=dict(Counter(given.tolist())),
        num_groups=len(set(digests)),
        duplicates=doubles,
        leaking_groups=tuple(crossing),
        sizes={f"{images.shape[2]}x{images.shape[1]}": len(images)},
        problems=tuple(problems if crossing else ()),
    )


def _check_folder(path: Path) -> DataReport:
    problems: list[str] = []
    empty = _empty_classes(path)
    problems += [f"class folder {name} holds no image" for name in empty]
    try:
        listing = list_folder(Request("folder", path, 32))
    except InputError as error:
        return _bare_report(path, [*problems, str(error)])
    unreadable, digests = _read_all(listing)
    problems += unreadable
    names = listing.names()
    doubles = _duplicates([names[i] for i in digests], list(digests.values()))
    groups = np.array([cxr3_group(name) for name in names])
    crossing = straddling_groups(groups, listing.splits)
    problems += [f"{len(same)} copies of one picture: {', '.join(same)}" for same in doubles]
    problems += [f"group {group} stands in more than one split" for group in crossing]
    counts = np.bincount(listing.labels, minlength=len(listing.class_names))
    return DataReport(
        path=str(path),
        kind="folder",
        num_images=len(listing.paths),
        class_counts=dict(zip(listing.class_names, (int(count) for count in counts), strict=True)),
        split_counts=dict(Counter(split or "(none)" for split in listing.splits.tolist())),
        num_groups=len(set(groups.tolist())),
        unreadable=tuple(unreadable),
        duplicates=doubles,
        leaking_groups=tuple(crossing),
        problems=tuple(problems),
    )


def _read_all(listing: Listing) -> tuple[list[str], dict[int, str]]:
    """Decode every file: what could not be read (one line each), and the content digest of the others."""
    unreadable: list[str] = []
    digests: dict[int, str] = {}
    for index, path in enumerate(listing.paths):
        try:
            _, digests[index] = decode(path, 32)
        except InputError as error:
            unreadable.append(str(error))
    return unreadable, digests


def _empty_classes(path: Path) -> list[str]:
    tops = list(find_split_folders(path).values()) or [path]
    folders = [folder for top in tops for folder in sorted(top.iterdir()) if folder.is_dir()]
    return [str(folder.relative_to(path)) for folder in folders if not any(map(is_image, folder.rglob("*")))]


def _duplicates(names: list[str], digests: list[str]) -> tuple[tuple[str, ...], ...]:
    same: dict[str, list[str]] = {}
    for name, digest in zip(names, digests, strict=True):
        same.setdefault(digest, []).append(name)
    return tuple(tuple(found) for found in same.values() if len(found) > 1)


def _bare_report(path: Path, problems: list[str]) -> DataReport:
    num = sum(1 for file in path.rglob("*") if is_image(file))
    return DataReport(path=str(path), kind="folder", num_images=num, class_counts={}, problems=tuple(problems))
