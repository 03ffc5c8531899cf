"""Read an npz archive of arrays: pictures or volumes, their labels and the split of each. Nothing is unpickled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.data.dataset import SPLITS
from tutelage.records import InputError, npz_arrays

from .labels import Labels, read_classes, read_columns
from .pixels import Range, range_of, to_bytes, unused_range

SLICES_HELP = (
    "of volumes: middle (one slice a volume), or how many slices at even distances, all along the first axis; "
    "slices of one volume are one group"
)


# The largest array of MedMNIST (TissueMNIST at 224 px) has 8 GB; what claims more than this is no such archive.
_MAX_ARRAY_BYTES = 64 * 1024**3


@dataclass(frozen=True)
class Archive:
    """Images uint8 `(n, h, w[, 3])`, labels of each, its split, and the group (digest) that must stay in one split."""

    images: NDArray[np.uint8]
    labels: Labels
    splits: NDArray[np.str_]
    groups: NDArray[np.str_]
    names: NDArray[np.str_]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class HowToRead:
    """What a recipe says of an archive: slices of volumes, the range of pixels, labels that are not known."""

    slices: Any = None
    range: Range | None = None
    unknown: str = "refuse"
    multi_label: bool | None = None


def read_archive(path: Path, how: HowToRead) -> Archive:
    """Read `{train,val,test}_{images,labels}` of an archive; InputError names the array and what is wrong with it."""
    images, labels = _arrays(path)
    pictures, notes = _pictures(path, images, how.range)
    starts = np.cumsum([0, *(len(images[split]) for split in SPLITS)])

    def place(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{path}: label {row - starts[part]} of {SPLITS[part]}"

    read = _labels(path, labels, place, how)
    given = np.repeat(np.array(SPLITS), [len(images[split]) for split in SPLITS])
    names = np.array([f"{split}/{row}" for split in SPLITS for row in range(len(images[split]))], dtype=np.str_)
    pictures, given, names = pictures[read.kept], given[read.kept], names[read.kept]
    groups = np.array([hashlib.sha256(picture.tobytes()).hexdigest()[:16] for picture in pictures], dtype=np.str_)
    archive = Archive(pictures, read, given, groups, names, (*notes, *read.notes))
    if _is_volume(pictures):
        return _slice(path, archive, how.slices)
    if how.slices is not None:
        raise InputError(f"slices: {how.slices} has no effect: {path} holds pictures, not volumes; leave it out")
    return archive


def _arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    names = [f"{split}_{part}" for split in SPLITS for part in ("images", "labels")]
    archive = npz_arrays(path, _MAX_ARRAY_BYTES, names)
    if missing := [name for name in names if name not in archive]:
        raise InputError(f"{path} is not a MedMNIST archive: it lacks {', '.join(missing)}")
    images = {split: archive[f"{split}_images"] for split in SPLITS}
    labels = {split: archive[f"{split}_labels"] for split in SPLITS}
    for split in SPLITS:
        if labels[split].ndim == 2 and labels[split].shape[1] == 1:
            labels[split] = labels[split][:, 0]
        _check_arrays(path, split, images[split], labels[split])
    for kind, arrays in (("images", images), ("labels", labels)):
        shapes = {split: (array.shape[1:], _kind(array, kind)) for split, array in arrays.items()}
        odd = [split for split in SPLITS if shapes[split] != shapes["train"]]
        if odd:
            raise InputError(f"{path}: {odd[0]}_{kind} are {_say(arrays[odd[0]])}, and train_{kind} "
                             f"{_say(arrays['train'])}: all splits must be alike")  # fmt: skip
    return images, labels


def _kind(array: NDArray[Any], what: str) -> str:
    """Name a type as far as splits must agree in it: pixels must, labels of numbers may differ."""
    return "U" if array.dtype.kind == "U" else "numbers" if what == "labels" else str(array.dtype)


def _say(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"


def _check_arrays(path: Path, split: str, images: NDArray[Any], labels: NDArray[Any]) -> None:
    if images.dtype.kind not in "iuf" or images.ndim not in (3, 4, 5) or 0 in images.shape[1:]:
        raise InputError(f"{path}: {split}_images must be numbers (n, h, w) or (n, h, w, 3), got {_say(images)}")
    if labels.ndim not in (1, 2) or labels.dtype.kind not in "iubfU":
        raise InputError(f"{path}: {split}_labels must be classes (n,) or 0/1 columns (n, L), got {_say(labels)}")
    if len(images) != len(labels):
        raise InputError(f"{path}: {split} has {len(images)} images and {len(labels)} labels")
    if len(images) == 0:
        raise InputError(f"{path}: {split} holds no image")


def _pictures(
    path: Path, parts: Mapping[str, NDArray[Any]], stated: Range | None
) -> tuple[NDArray[np.uint8], list[str]]:
    """Bring all splits to one uint8 array, channels last, scaled by one range."""
    images, notes = np.concatenate([parts[split] for split in SPLITS]), []
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        images = np.moveaxis(images, 1, 3)
        notes.append(f"images are {_say(parts['train'])}, channels first: read so")
    if images.ndim == 5 and images.shape[4] != 1:
        raise InputError(f"{path}: volumes of {images.shape[4]} channels are not read: give one channel")
    if images.ndim in (4, 5) and images.shape[-1] == 1:
        images = images[..., 0]
    if images.dtype == np.uint8:
        if stated is not None:
            raise InputError(f"range: {list(stated)} has no effect: {path} holds 8-bit pixels; leave it out")
        return images, notes
    try:
        limits = range_of(images, stated)
    except InputError as error:
        raise InputError(f"{path} {error}") from None
    unused = unused_range(float(images.min()), float(images.max()), limits) if stated is None else None
    return to_bytes(images, limits), [*notes, *([unused] if unused else [])]


def _labels(path: Path, parts: Mapping[str, NDArray[Any]], place: Any, how: HowToRead) -> Labels:
    labels = np.concatenate([parts[split] for split in SPLITS])
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    what = f"{path}: labels"
    if labels.ndim == 2:
        names = [f"column {number}" for number in range(labels.shape[1])]
        return read_columns(labels, names, place, what, how.unknown, how.multi_label)
    if how.multi_label is not None:
        raise InputError(f"multi_label: {how.multi_label} has no effect: {path} has one label an image; leave it out")
    return read_classes(labels, place, what, how.unknown)


def _is_volume(images: NDArray[Any]) -> bool:
    return images.ndim == 4 and images.shape[3] != 3


def _slice(path: Path, archive: Archive, slices: Any) -> Archive:
    """Cut volumes into the slices that the recipe asks for; without a rule they are refused."""
    depth = archive.images.shape[1]
    if slices is None:
        raise InputError(
            f"{path} holds volumes {archive.images.shape[1:]}, and networks here read pictures: choose slices, "
            "data.options.slices: middle (one a volume), or a number of slices at even distances"
        )
    num = 1 if slices == "middle" else slices
    if isinstance(num, bool) or not isinstance(num, int) or not 1 <= num <= depth:
        raise InputError(f"slices {slices!r} is neither middle nor a number from 1 to {depth}")
    at = ((2 * np.arange(num) + 1) * depth) // (2 * num)  # the middles of equal parts: depth // 2 for one
    note = f"{len(archive.images)} volumes: slices {_ranges(at)} of {depth} along the first axis, one group a volume"
    return Archive(
        images=archive.images[:, at].reshape(-1, *archive.images.shape[2:]),
        labels=archive.labels.take(np.repeat(np.arange(len(archive.images)), num)),
        splits=np.repeat(archive.splits, num),
        groups=np.repeat(archive.groups, num),
        names=np.array([f"{name}/{place}" for name in archive.names for place in at], dtype=np.str_),
        notes=(*archive.notes, note),
    )


def _ranges(numbers: Sequence[int] | NDArray[np.int64]) -> str:
    shown = [str(int(number)) for number in numbers]
    return ", ".join(shown if len(shown) <= 5 else [*shown[:2], "...", shown[-1]])
