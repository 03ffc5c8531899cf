"""What a user's images are, before a recipe is chosen for them: `look`, by the code that reads data for a run.

Files are listed as a run lists them; of some spread over all of them the native size and the colours are read.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tutelage.distill.data.check import is_there, recognise
from tutelage.distill.data.containers.paths import read_bytes
from tutelage.distill.data.dataset import Dataset, Listing
from tutelage.distill.data.images import Decoding, read_picture
from tutelage.distill.data.reading.columns import guess_columns, guess_group_column
from tutelage.distill.data.reading.suffixes import looks_like_dicom
from tutelage.distill.data.reading.tables import is_table
from tutelage.distill.data.registry import DATASETS, open_images, request_for, split_hub_name
from tutelage.distill.data.sets.folders import group_rule
from tutelage.distill.data.splits import count_labels
from tutelage.records import InputError

SAMPLED = 64  # files that are opened for their size and colours
_SIZE = 32  # pixels that these are decoded to
# Mean difference of red, green and blue, in gray levels, from which a picture has colours: gray JPEG has less.
_COLOURED = 3.0
# What stands before the number of a patient or series in file names.
_WORDS = ("patient", "subject", "person", "case", "study", "series", "scan", "donor", "animal", "mouse", "pat", "sub")
_LEADING_ID = r"^(?:([A-Za-z]*\d{2,}[A-Za-z]?)(?=[-_]))?"
_MIN_GROUPS = 10
_MOST_IN_ONE = 0.2  # of the images in one group: more is a word that all names begin with, or a year


@dataclass(frozen=True)
class Findings:
    """What is known of a data set. `side` is the median of the pictures' shorter sides in pixels, None for any size."""

    dataset: str
    path: Path | None
    options: Mapping[str, Any]
    num_images: int
    class_counts: Mapping[str, int]
    multi_label: bool
    splits: Mapping[str, int]  # that the set comes with, with their images
    num_groups: int
    grouped_by: str  # in words; empty: every picture is a group of its own
    side: int | None
    colour: bool
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Give 3 for pictures with colours, else 1."""
        return 3 if self.colour else 1

    @property
    def imbalance(self) -> float:
        """Give how many times as many images the largest class has as the smallest (labels: as none of that label)."""
        counts, num = list(self.class_counts.values()), self.num_images
        if self.multi_label:
            return max(max(count, num - count) / max(1, min(count, num - count)) for count in counts)
        return max(counts) / max(1, min(counts))


def look(path: Path | None, dataset: str | None) -> Findings:
    """List the images at a path, or of a named data set, and look at some of them.

    Raises InputError, one line, for what a run could not read.
    """
    options: Mapping[str, Any] = {}
    if dataset is not None:
        dataset, path = split_hub_name(dataset, path)
        if dataset == "table" and path is not None and is_table(path):
            options = guess_columns(path)
    elif path is not None:
        _check_place(path)
        entry, options = recognise(path)
        dataset = entry.name
    else:
        raise InputError("there is nothing to begin with: give --path, the folder or file of the images, or --dataset")
    options = {name: value for name, value in options.items() if value}
    request = request_for(dataset, path=path, size=_SIZE, channels=3, options=options)
    found = open_images(request)
    if isinstance(found, Dataset):
        return _of_arrays(found, dataset, path, options)
    if not found.paths:
        raise InputError(f"no image found at {path}: give a folder with one folder of pictures a class, or another set")
    groups, grouped_by = found.groups, "the data set" if len(set(found.groups)) < len(found.groups) else ""
    if grouped_by and options.get("group"):
        grouped_by = f"rule {options['group']} on the file names"
    elif not grouped_by and "group" in DATASETS.find(dataset).options and dataset == "folder":
        guessed = guess_group(found.names())
        if guessed is not None:
            words, pattern, groups = guessed
            grouped_by, options = f"{words} in the file names", {**options, "group": pattern}
    elif dataset == "table" and not grouped_by and (column := guess_group_column(path or Path())) is not None:
        options = {**options, "group_column": column}
        found = open_images(replace(request, options=options))
        assert isinstance(found, Listing)
        groups, grouped_by = found.groups, f"column {column}"
    sides, colour = _sampled(found, options)
    counts = count_labels(found.labels, found.class_names)
    return Findings(
        dataset, path, options, len(found.paths), counts, found.multi_label, _counted(found.splits),
        len(set(groups)), grouped_by, round(statistics.median(sides)), colour, found.notes,
    )  # fmt: skip


def guess_group(names: Sequence[str]) -> tuple[str, str, NDArray[np.str_]] | None:
    """Find a pattern of file names that puts pictures of one patient or series into one group; None where none does.

    Gives what it goes by in words, the pattern and the groups. A picture whose name says nothing is a group of its own.
    There must be ten groups or more, a quarter of the pictures in groups of several, and a fifth at most in one.
    """
    patterns = [(f"the number after {word!r}", _numbered(word)) for word in _WORDS]
    for words, pattern in (*patterns, ("the id before the first _ or -", _LEADING_ID)):
        groups = list(map(group_rule(pattern), names))
        _, counts = np.unique(groups, return_counts=True)
        shared = int(counts[counts > 1].sum())
        if len(counts) >= _MIN_GROUPS and shared >= len(names) / 4 and counts.max() <= _MOST_IN_ONE * len(names):
            return words, pattern, np.array(groups, dtype=np.str_)
    return None


def _numbered(word: str) -> str:
    """Give a pattern whose group 1 is a word with its number, wherever it stands in a name; it matches any name."""
    return rf"(?i)^(?:.*?(?<![a-z])({word}[-_ ]?\d+))?"


def _check_place(path: Path) -> None:
    """Refuse nothing, a picture and an empty folder, in words that fit a first command."""
    if not is_there(path):
        raise InputError(f"no data at {path}: give a folder with one folder of pictures a class, or another set")
    if path.is_file() and path.suffix.lower() in Image.registered_extensions():
        raise InputError(f"{path} is one picture: give the folder that holds one folder of pictures a class")
    if path.is_dir() and not any(path.iterdir()):
        raise InputError(f"{path} is empty: put one folder of pictures a class into it")


def _of_arrays(data: Dataset, dataset: str, path: Path | None, options: Mapping[str, Any]) -> Findings:
    entry = DATASETS.find(dataset)
    sizes = entry.check(path).sizes if entry.check is not None and path is not None and path.exists() else {}
    sides = [min(map(int, name.split("x"))) for name in sizes]
    places = np.unique(np.linspace(0, len(data.images) - 1, SAMPLED).astype(int))
    splits = {name: len(indices) for name, indices in data.splits.items()} if sizes else {}
    return Findings(
        dataset, path, options, len(data.images), count_labels(data.labels, data.class_names), data.multi_label,
        splits, len(set(data.groups)), "the data set" if len(set(data.groups)) < len(data.images) else "",
        min(sides) if sides else None, _are_coloured(data.images[place] for place in places), data.notes,
    )  # fmt: skip


def _sampled(listing: Listing, options: Mapping[str, Any]) -> tuple[list[int], bool]:
    """Give the shorter sides of some pictures and whether they have colours; unreadable ones are counted later."""
    how = Decoding.of(options)
    sides, pixels, fault = list[int](), list[NDArray[np.uint8]](), ""
    for place in np.unique(np.linspace(0, len(listing.paths) - 1, SAMPLED).astype(int)).tolist():
        path = listing.paths[place]
        try:
            pixels.append(read_picture(path, _SIZE, 3, how).pixels)
            sides.append(_shorter_side(path))
        except InputError as error:
            fault = fault or str(error)
    if not sides:
        raise InputError(f"no picture can be read, the first that was tried: {fault}")
    return sides, _are_coloured(pixels)


def _shorter_side(path: Path) -> int:
    content = read_bytes(path)
    if looks_like_dicom(path, content[:132]):
        from tutelage.distill.data.reading.dicom import read_values

        height, width = read_values(content, None, "tag").pixels.shape[:2]
        return int(min(height, width))
    with Image.open(io.BytesIO(content)) as picture:
        return min(picture.size)


def _are_coloured(images: Iterable[NDArray[np.uint8]]) -> bool:
    """Say whether at least a twentieth of images `(h, w, 3)` have colours."""
    spans = [np.ptp(image.astype(np.int16), axis=2).mean() if image.shape[2] == 3 else 0.0 for image in images]
    return bool(np.mean(np.array(spans) > _COLOURED) >= 0.05)


def _counted(splits: NDArray[np.str_]) -> dict[str, int]:
    names, counts = np.unique(splits, return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True) if name}
