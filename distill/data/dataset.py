"""The records of image data: the entry of a data set, requests for it, and its results.

A `DatasetEntry` maps a `Request` to a `Listing` of files or a `Dataset` in memory; a `DataReport` describes a path.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.records import ID_DIGITS, InputError, checked_name

from .containers.packed import refuse_compressed
from .containers.paths import glob, is_dir, is_file, top_of
from .reading.dicom import WINDOW_HELP
from .reading.folders import is_split_folder
from .reading.pixels import RANGE_HELP

SPLITS = ("train", "val", "test")
EXTRA = "extra"  # a second test split, where a set has one

_HASHED_IMAGES = 256  # whose pixels tell one data set from another decoded in another way


@dataclass(frozen=True)
class Dataset:
    """Images, labels and splits, as training sees them.

    `images` is uint8 `(n, h, w, c)`, an array or a read-only memory map; `labels` int64 `(n,)`, or float32 `(n, L)`
    with one 0/1 column a label (`multi_label`), where NaN means "not known, leave out of the loss" (CheXpert's
    `ignore` policy, nowhere else). `groups` names the patient, series or block each image belongs to; `masks` is
    uint8 `(n, h, w)`, 1 where the lesion is. `leaky` says that images of one group stand in several splits.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[Any]
    class_names: tuple[str, ...]
    groups: NDArray[np.str_]
    splits: Mapping[str, NDArray[np.int64]]
    masks: NDArray[np.uint8] | None = None
    multi_label: bool = False
    leaky: bool = False
    manifest: str = ""
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    names: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, dtype=np.str_))
    title: str = ""  # what rows call it; empty: `name`

    @property
    def called(self) -> str:
        """Give what rows and people call the set: of a reader of any such files the set's own name."""
        return self.title or self.name

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return int(self.images.shape[3])

    @property
    def size(self) -> int:
        return int(self.images.shape[1])

    def indices(self, split: str) -> NDArray[np.int64]:
        """Give the indices of one split; an unknown or empty one is an error that names it."""
        if split not in self.splits:
            raise InputError(f"data set {self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        if len(self.splits[split]) == 0:
            raise InputError(f"split {split!r} of data set {self.name} holds no image: raise its fraction or the limit")
        return self.splits[split]

    @cached_property
    def split_digests(self) -> dict[tuple[str, int, str], str]:
        """Keep the hashes of whole splits, by split, resolution and kind of device, for who computes them."""
        return {}

    @cached_property
    def identity(self) -> str:
        """Hash what training sees: the manifest, every label, the splits, and the pixels of images spread over all.

        The manifest names files, labels, groups and splits; the pixels tell how files were decoded (size, channels,
        the option `fit`), which changes all of them.
        """
        digest = hashlib.sha256(f"{self.manifest}{self.images.shape}{self.class_names}{self.leaky}".encode())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        for name in sorted(self.splits):
            digest.update(name.encode() + np.ascontiguousarray(self.splits[name]).tobytes())
        for index in np.unique(np.linspace(0, len(self.images) - 1, _HASHED_IMAGES).astype(np.int64)):
            digest.update(np.ascontiguousarray(self.images[index]).tobytes())
        return digest.hexdigest()[:ID_DIGITS]

    def class_counts(self, split: str) -> dict[str, int]:
        """Count the images of each class (each positive label) in one split."""
        labels = self.labels[self.splits[split]]
        if self.multi_label:
            counts = np.nansum(labels, axis=0).astype(int)
        else:
            counts = np.bincount(labels, minlength=self.num_classes)
        return {name: int(count) for name, count in zip(self.class_names, counts, strict=True)}


@dataclass(frozen=True)
class Request:
    """The arguments of `load_dataset`; a data set reads the fields that concern it and its own `options`."""

    name: str
    path: Path | None
    size: int
    channels: int = 1
    seed: int = 0
    val_fraction: float = 0.15
    test_fraction: float = 0.2
    cache: Path | None = None
    limit: int | None = None
    whole_test: bool = False
    skip_bad: bool = False
    leaky: bool = False
    fold: int | None = None
    folds: int = 5
    options: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 1
    title: str = ""  # what rows call the set; empty: `name`

    def folder(self) -> Path:
        """Give the folder of a set that lies in one; a file or nothing there is an error."""
        root = self.where()
        if not is_dir(root):
            raise InputError(f"{root} is a file: data set {self.name} needs its folder")
        return root

    def where(self) -> Path:
        """Give the path of a set that lies on disk; its absence is an error that names the remedy."""
        if self.path is None:
            raise InputError(f"data set {self.name} lies on disk: say where (path=..., or data.path in the recipe)")
        if not (self.path.exists() or is_file(self.path) or is_dir(self.path)):
            raise InputError(f"no data at {self.path}: data set {self.name} needs a file or folder there")
        refuse_compressed(self.path)
        return top_of(self.path, is_split_folder)

    def option(self, key: str, default: Any) -> Any:
        """Read one of the data set's own options; `load_dataset` has refused those that its entry does not list."""
        return self.options.get(key, default)

    def near(self, default: float = 0.0) -> float | None:
        """Read the option `near`: how many gray levels copies of one image may differ by; 0 means no grouping."""
        near = float(self.option("near", default))
        if near < 0:
            raise InputError(f"near must be 0 (off) or some gray levels, got {near}")
        return near or None


@dataclass(frozen=True)
class Listing:
    """The files of a set before any is decoded: one entry an image.

    `splits` holds "train", "val", "test", "extra" (a second test) or "" (not said); `labels` as in `Dataset`.
    `missing` names files that a table lists and the disk lacks. `near_duplicates`, in gray levels: images
    whose signatures differ by no more are put in one group. With `slices` (each image's number in its sequence, its
    class folder) groups become blocks of about `block` neighbours, split by their pixels. `notes` say what was read
    otherwise than it stands there; `facts` count what else the files say (patients, series, modality). `origin` names
    the version of a set that was fetched (`owner/name@commit`) and is a part of the manifest.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: NDArray[Any]
    class_names: tuple[str, ...]
    groups: NDArray[np.str_]
    splits: NDArray[np.str_]
    multi_label: bool = False
    missing: tuple[str, ...] = ()
    near_duplicates: float | None = None
    slices: NDArray[np.int64] | None = None
    block: int = 0
    notes: tuple[str, ...] = ()
    facts: Mapping[str, int] = field(default_factory=dict)
    origin: str = ""

    def take(self, chosen: NDArray[Any]) -> Listing:
        """Keep the entries at `chosen` (indices, in that order)."""
        return replace(
            self,
            paths=tuple(self.paths[i] for i in chosen),
            labels=self.labels[chosen],
            groups=self.groups[chosen],
            splits=self.splits[chosen],
            slices=self.slices[chosen] if self.slices is not None else None,
        )

    def names(self) -> list[str]:
        """Give every file's path below the root, with forward slashes.

        Where a table lists files elsewhere, they are named below the folder that holds all of them.
        """
        texts = [os.fspath(path) for path in self.paths]
        below = "" if self.root == Path() else f"{os.fspath(self.root).rstrip('/')}/"
        if all(text.startswith(below) and (below or not text.startswith("/")) for text in texts):
            return [text[len(below) :] for text in texts]  # as relative_to, which takes ten times as long
        if all(path.is_relative_to(self.root) for path in self.paths):
            return [path.relative_to(self.root).as_posix() for path in self.paths]
        whole = [Path(os.path.abspath(path)) for path in self.paths]
        base = os.path.commonpath([path.parent for path in whole])
        return [path.relative_to(base).as_posix() for path in whole]


@dataclass(frozen=True)
class DataReport:
    """What a path holds. `problems`, one line each, are what a run refuses; there is none when a run can read the data.

    `notes` say what a run does about what is odd. `facts` counts what else the files say (patients, series, modality).
    `kind` is the data set that reads it, `options` are what it needs to be given.
    """

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
    notes: tuple[str, ...] = ()
    facts: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class DatasetEntry:
    """One data set of the registry: how it is listed or loaded, what it reads, how `tutelage data check` knows it.

    A set of picture files has `list_files`: decoding, near-duplicates, splits and caches are the same for all
    such sets.
    A set of arrays has `load_arrays` instead; where that takes long, `glance` gives the same set with an array of no
    images, by which a recipe is checked before. `options` are its own options, each with a line of help. `path` says
    whether it needs a file or folder. `recognise` gives the options with which a path would be read, or None where the
    path is something else; `faults` adds problems that a listing does not show; `check` takes the whole check over.
    `called` names the set itself where the entry reads any set of its kind. `of_one` names the options that are of one
    set and of no other of its kind: which one to download.
    """

    name: str
    help: str
    list_files: Callable[[Request], Listing] | None = None
    load_arrays: Callable[[Request], Dataset] | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    path: Literal["needed", "optional", "unused"] = "needed"
    recognise: Callable[[Path], Mapping[str, Any] | None] | None = None
    faults: Callable[[Path], list[str]] | None = None
    check: Callable[[Path], DataReport] | None = None
    glance: Callable[[Request], Dataset] | None = None
    called: Callable[[Request], str] | None = None
    of_one: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.list_files is None) == (self.load_arrays is None):
            raise ValueError(f"data set {self.name}: give either list_files or load_arrays")

    @property
    def all_options(self) -> Mapping[str, str]:
        """Give the options that a recipe may set: its own, and those of all picture files."""
        return self.options if self.list_files is None else {**self.options, **_FILE_OPTIONS}

    def shared_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Give the options by which another set of the same kind is read: all but its title and those of one set."""
        return {name: value for name, value in options.items() if name not in ("title", *self.of_one)}

    def check_request(self, path: Path | None, options: Mapping[str, Any]) -> None:
        """Refuse options that it does not read, and a path that it would ignore."""
        for given in options:
            if given not in self.all_options:
                known = ", ".join(self.all_options) or "none"
                raise InputError(f"data set {self.name} has no option {given!r}; it takes {known}")
        if path is not None and self.path == "unused":
            raise InputError(
                f"path is {str(path)!r}, and data set {self.name} is drawn, not read: name the set that lies there, "
                "e.g. folder"
            )

    def title_of(self, request: Request) -> str:
        """Say what rows call a set: the option `title`, else what the set itself is called; empty: the entry's name."""
        if "title" not in request.options:
            return "" if self.called is None else self.called(request)
        try:
            title = checked_name(str(request.options["title"]))
        except ValueError as error:
            raise InputError(f"title {request.options['title']!r}: {error}") from None
        if not title:
            raise InputError("title is empty: name the data set, or leave title out")
        return title


_FILE_OPTIONS = {
    "title": "what rows call the data set (default: its own name, of folders and files theirs)",
    "fit": "how a picture becomes square: squash (default), crop or pad",
    "range": RANGE_HELP,
    "window": WINDOW_HELP,
}


def has_files(*patterns: str, **options: Any) -> Callable[[Path], Mapping[str, Any] | None]:
    """Make a `recognise` for a folder in which every pattern matches something."""

    def recognise(path: Path) -> Mapping[str, Any] | None:
        try:
            place = top_of(path, is_split_folder)
            found = is_dir(place) and all(glob(place, pattern) for pattern in patterns)
        except InputError:  # damaged: the set that reads any such file says it
            return None
        return options if found else None

    return recognise


@contextmanager
def without_collector() -> Iterator[None]:
    """Pause Python's search for cycles: 100,000 new paths and rows hold none, and the search is a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def manifest_hash(*columns: Sequence[object] | NDArray[Any], origin: str = "") -> str:
    """Hash a split manifest, given by columns (name, label, group, split, content digest): 16 hex digits.

    `origin` names the version of a set that was fetched.
    """
    lines = ["\t".join(row) for row in zip(*map(_texts, columns), strict=True)]
    # Names of files are bytes on Linux: surrogates stand for those that are not UTF-8.
    text = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
    return hashlib.sha256(origin.encode() + text).hexdigest()[:ID_DIGITS]


def _texts(column: Sequence[object] | NDArray[Any]) -> list[str]:
    """Write each cell of a column; lists of labels, of which there are few different ones, once."""
    quick = isinstance(column, np.ndarray) and column.dtype.kind in "Uiub"  # cells are written as Python's are
    cells = column.tolist() if quick else list(column)  # type: ignore[union-attr]
    if not cells or not isinstance(cells[0], list):
        return [str(cell) for cell in cells]
    known: dict[tuple[object, ...], str] = {}
    return [known.get(key := tuple(cell)) or known.setdefault(key, str(cell)) for cell in cells]


def split_column(splits: Mapping[str, NDArray[np.int64]], num_images: int) -> NDArray[np.str_]:
    """Write splits as one word an image: "train", "val", "test", or "" for an image in none."""
    column = np.full(num_images, "", dtype="<U5")
    for name, indices in splits.items():
        column[indices] = name
    return column
