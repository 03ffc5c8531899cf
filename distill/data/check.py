"""Look at data before a run does: what a file or folder holds, what is missing, unreadable, double, or leaks.

Enters: a path. Leaves: a `DataReport`, which says everything it found instead of stopping at the first fault.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.distill.data.sets.chest import list_chestxray14, list_chexpert, list_padchest
from tutelage.distill.data.sets.covid import list_covid_qu_ex, list_sars_cov_2_ct
from tutelage.distill.data.sets.folders import find_split_folders, list_folder
from tutelage.distill.data.sets.lc25000 import list_lc25000
from tutelage.distill.data.sets.medmnist import read_archive
from tutelage.distill.data.sets.table import list_table
from tutelage.distill.data.sets.xray import COLLECTIONS, list_xray
from tutelage.records import InputError

from .dataset import Listing, Request
from .images import decode, is_image
from .splits import one_hot, straddling_groups

# What lies in a folder of each collection (all patterns must match something).
_MARKS: dict[str, tuple[str, ...]] = {
    "chestxray14": ("Data_Entry_2017*.csv",),
    "chexpert": ("train.csv", "valid.csv"),
    "padchest": ("PADCHEST_chest_x_ray_images_labels_160K*.csv",),
    "covid-qu-ex": ("Lung Segmentation Data",),
    "lc25000": ("lung_image_sets", "colon_image_sets"),
    "sars-cov-2-ct": ("COVID", "non-COVID"),
    # read by the package of that name, as its collection mimic-cxr or brax
    "torchxrayvision mimic-cxr": tuple(COLLECTIONS["mimic-cxr"].tables.values()),
    "torchxrayvision brax": tuple(COLLECTIONS["brax"].tables.values()),
}

_LISTERS: dict[str, Callable[[Request], Listing]] = {
    "chestxray14": list_chestxray14,
    "chexpert": list_chexpert,
    "padchest": list_padchest,
    "covid-qu-ex": list_covid_qu_ex,
    "lc25000": list_lc25000,
    "sars-cov-2-ct": list_sars_cov_2_ct,
    "table": list_table,
    "folder": list_folder,
    "torchxrayvision": list_xray,
}


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
    missing: tuple[str, ...] = ()
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
    """Say what a MedMNIST archive, a table, a known collection or a folder of classes holds, faults and all.

    Raises InputError only when there is nothing to look at.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no data at {path}: give a MedMNIST .npz, a CSV, or a folder with one folder a class")
    if path.is_file() and path.suffix == ".npz":
        return _check_archive(path)
    kind = detect(path)
    return _check_files(path, kind)


def detect(path: Path) -> str:
    """Tell which family (a name in the registry; with it, a collection) a path looks like, by what lies in it."""
    if path.is_file():
        if path.suffix.lower() == ".csv":
            return "table"
        raise InputError(f"{path} is neither a MedMNIST .npz, nor a CSV, nor a folder")
    for kind, patterns in _MARKS.items():
        if all(any(path.glob(pattern)) for pattern in patterns):
            return kind
    return "folder"


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


def _check_files(path: Path, kind: str) -> DataReport:
    problems = [f"class folder {name} holds no image" for name in _empty_classes(path)] if kind == "folder" else []
    family, _, collection = kind.partition(" ")
    options = {"collection": collection} if collection else {"group": _folder_rule(path)} if kind == "folder" else {}
    try:
        listing = _LISTERS[family](Request(family, path, 32, options=options))
    except InputError as error:
        return _bare_report(path, kind, [*problems, str(error)])
    unreadable, digests = _read_all(listing.paths)
    names = listing.names()
    doubles = _duplicates([names[i] for i in digests], list(digests.values()))
    crossing = straddling_groups(listing.groups, listing.splits)
    problems += [f"{name} is listed and not there" for name in listing.missing]
    problems += unreadable
    problems += [f"{len(same)} copies of one file: {', '.join(same)}" for same in doubles]
    problems += [f"group {group} stands in more than one split" for group in crossing]
    counts = np.nansum(one_hot(listing.labels), axis=0).astype(int)
    return DataReport(
        path=str(path),
        kind=kind,
        num_images=len(listing.paths),
        class_counts=dict(zip(listing.class_names, (int(count) for count in counts), strict=True)),
        split_counts=dict(Counter(split or "(none)" for split in listing.splits.tolist())),
        num_groups=len(set(listing.groups.tolist())),
        unreadable=tuple(unreadable),
        missing=listing.missing,
        duplicates=doubles,
        leaking_groups=tuple(crossing),
        problems=tuple(problems),
    )


def _folder_rule(path: Path) -> str:
    """Choose how to group a class folder: by patient where files are named as NIH's are (`00001280_004.png`)."""
    nih = any(re.fullmatch(r"\d{8}_\d{3}", file.stem) for file in path.rglob("*") if is_image(file))
    return "cxr3" if nih else ""


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


def _empty_classes(path: Path) -> list[str]:
    tops = list(find_split_folders(path).values()) or [path]
    folders = [folder for top in tops for folder in sorted(top.iterdir()) if folder.is_dir()]
    return [str(folder.relative_to(path)) for folder in folders if not any(map(is_image, folder.rglob("*")))]


def _duplicates(names: list[str], digests: list[str]) -> tuple[tuple[str, ...], ...]:
    same: dict[str, list[str]] = {}
    for name, digest in zip(names, digests, strict=True):
        same.setdefault(digest, []).append(name)
    return tuple(tuple(found) for found in same.values() if len(found) > 1)


def _bare_report(path: Path, kind: str, problems: list[str]) -> DataReport:
    """Report on data that cannot be listed: its files are read all the same, so that every fault is told at once."""
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
