"""Further test sets that a recipe names (`measure.shift_sets`): the same classes, from elsewhere (`ShiftSets`).

A set is read as the training data are, at another path. Copies of training or validation images are left out of it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.data.assemble import only_test
from tutelage.distill.data.check import is_there
from tutelage.distill.data.dataset import Dataset, Listing, Request
from tutelage.distill.data.registry import DATASETS, open_images
from tutelage.records import InputError, NotAvailableError

log = logging.getLogger(__name__)

# Classes that an error names.
_MOST_NAMED = 5
# Images that are read at a time to be compared.
_READ = 256


class ShiftSets(Mapping[str, Dataset]):
    """Test sets by name, each opened once, when it is first asked for; what is evaluated is a set's split `test`."""

    def __init__(self, requests: Mapping[str, Request], own: Dataset) -> None:
        """own: the data that networks are trained on, whose classes the sets have."""
        self._requests, self._own = requests, own
        self._opened: dict[str, Dataset] = {}

    def __getitem__(self, name: str) -> Dataset:
        if name not in self._opened:
            request = self._requests[name]
            listed = find_set(name, request)
            with errors_of(name):
                found = only_test(listed, request)
            self._opened[name] = _opened(name, found, self._own)
        return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._requests)

    def __len__(self) -> int:
        return len(self._requests)


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Begin the errors of what is done for a test set with its place in the recipe."""
    try:
        yield
    except InputError as error:
        kind = NotAvailableError if isinstance(error, NotAvailableError) else InputError
        raise kind(f"measure.shift_sets: {name}: {error}") from None


def find_set(name: str, request: Request, *, glance: bool = False) -> Listing | Dataset:
    """List or load a test set; with `glance` no images where that takes long. Raises InputError where none is there."""
    entry = DATASETS.find(request.name)
    with errors_of(name):
        if request.path is not None and not is_there(request.path):  # a reader may download the data that it knows
            raise InputError(f"no data at {request.path}: name the file or folder where this test set lies")
        return (entry.glance if glance and entry.glance is not None else open_images)(request)


def check_classes(name: str, class_names: Sequence[str], multi_label: bool, own: Dataset) -> None:
    """Refuse a test set whose classes, by name, are not those of the training data. Raises InputError."""
    lacking, more = (sorted(set(one) - set(other)) for one, other in
                     ((own.class_names, class_names), (class_names, own.class_names)))  # fmt: skip
    said = [f"{verb} {_listed(names)}" for verb, names in (("lacks", lacking), ("has", more)) if names]
    if multi_label != own.multi_label:
        kinds = ("single-label", "multi-label")
        said = [f"is {kinds[multi_label]}, and the training data are {kinds[own.multi_label]}"]
    if said:
        raise InputError(
            f"measure.shift_sets: {name} {' and '.join(said)}: a test set has the classes of the training data, by name"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"the class{'es' * (len(names) > 1)} {', '.join(names[:_MOST_NAMED])}{more}"


def _opened(name: str, found: Dataset, own: Dataset) -> Dataset:
    """Number a set's labels as the training data's are, and leave out what was trained on."""
    check_classes(name, found.class_names, found.multi_label, own)
    labels = _renumbered(found, own.class_names)
    trained, tests = np.concatenate([own.splits[split] for split in ("train", "val")]), found.indices("test")
    copies, notes = _copies(found.images, tests, own.images, np.sort(trained)), []
    if len(copies) == len(tests):
        raise InputError(f"measure.shift_sets: all images of {name} are training or validation images: name another")
    if len(copies):
        notes.append(f"{len(copies)} of its {len(tests)} images are training or validation images and were left out")
    places = np.setdiff1d(tests, copies)
    kept = replace(found, labels=labels, class_names=own.class_names, splits={"test": places})
    mine = _ids(kept)[places]
    shared = (mine != "") & np.isin(mine, _ids(own)[trained])
    if shared.any():
        notes.append(
            f"{int(shared.sum())} of its images are of groups (patients, series) whose names the training data have, "
            "too: if these are the same ones, take them out of the set"
        )
    for note in notes:
        log.warning("test set %s: %s", name, note)
    return replace(kept, notes=(*found.notes, *notes))


def _renumbered(found: Dataset, class_names: Sequence[str]) -> NDArray[Any]:
    if found.multi_label:
        return found.labels[:, [found.class_names.index(name) for name in class_names]]
    numbers = np.array([class_names.index(name) for name in found.class_names], dtype=np.int64)
    renumbered: NDArray[np.int64] = numbers[found.labels]
    return renumbered


def _ids(dataset: Dataset) -> NDArray[np.str_]:
    """Give the group of each image, empty where it is the image's own name: no id of a patient or series."""
    groups = dataset.groups
    return np.where(groups == dataset.names, "", groups) if len(dataset.names) else groups


def _copies(
    images: NDArray[np.uint8], tests: NDArray[np.int64], own: NDArray[np.uint8], trained: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give the places among `tests` of images that equal one of those trained on, pixel by pixel.

    One line of each image is compared first. Images of a file are read some at a time: pages of its map would stay in
    memory.
    """
    line = images.shape[1] // 2
    places: dict[bytes, dict[str, list[int]]] = {}
    for place, image in _each(images, np.sort(tests)):
        places.setdefault(image[line].tobytes(), {}).setdefault(_digest(image), []).append(place)
    found: list[int] = []
    for _, image in _each(own, trained):
        if (alike := places.get(image[line].tobytes())) is not None:
            found += alike.pop(_digest(image), [])
    return np.array(sorted(found), dtype=np.int64)


def _each(images: NDArray[np.uint8], places: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for start in range(0, len(places), _READ):
        some = places[start : start + _READ]
        yield from zip(some.tolist(), images[some], strict=True)


def _digest(image: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
