"""Splits that keep groups whole: patients, series, blocks of slices or near-duplicates never straddle a split.

`make_splits` gives indices of train, val and test, nearly stratified by class (or by label, when multi-label): see
`assign_groups`. The literature's image-level split is made on request only.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InputError

from .dataset import EXTRA, SPLITS, Request

log = logging.getLogger(__name__)

Splits = dict[str, NDArray[np.int64]]


def make_splits(labels: NDArray[Any], groups: NDArray[np.str_], given: NDArray[np.str_], request: Request) -> Splits:
    """Make train, val and test from what the set gives ("train"/"val"/"test"/"" an image) and the request.

    A set with no split of its own gets test and val by fraction, or by `fold` of `folds`; an official test split is
    kept, and val is split off train where the set has none. With `leaky`, each image is a group of its own.
    """
    _check_fractions(request)
    rng = np.random.default_rng([request.seed, 7])
    units = np.arange(len(groups)).astype(np.str_) if request.leaky else groups
    kinds = one_hot(labels)
    if len(units):
        check_groups(units, given, request)
    split = given.astype("<U5")
    open_ = np.flatnonzero(split == "")
    if (split == "test").any() and request.fold is not None:
        raise InputError(f"data set {request.name} has an official test split: leave out fold={request.fold}")
    if not (split == "test").any():
        pool = np.flatnonzero((split == "") | (split == "train"))
        split[pool] = "train"
        if request.fold is not None:
            if not 0 <= request.fold < request.folds:
                raise InputError(f"fold {request.fold} is not one of 0..{request.folds - 1}")
            parts = assign_groups(kinds[pool], units[pool], [1 / request.folds] * request.folds, rng)
            split[pool[parts == request.fold]] = "test"
        elif request.test_fraction > 0:
            parts = assign_groups(kinds[pool], units[pool], [1 - request.test_fraction, request.test_fraction], rng)
            split[pool[parts == 1]] = "test"
    else:
        split[open_] = "train"
    if not (split == "val").any() and request.val_fraction > 0:
        pool = np.flatnonzero(split == "train")
        share = min(0.5, request.val_fraction * (len(pool) + int((split == "test").sum())) / max(1, len(pool)))
        share = share if not (given == "test").any() else request.val_fraction
        parts = assign_groups(kinds[pool], units[pool], [1 - share, share], rng)
        split[pool[parts == 1]] = "val"
    names = (*SPLITS, EXTRA) if (split == EXTRA).any() else SPLITS
    return {name: np.flatnonzero(split == name).astype(np.int64) for name in names}


def check_groups(groups: NDArray[np.str_], given: NDArray[np.str_], request: Request) -> None:
    """Refuse folds or splits that are more than the groups they are made of: one of them would hold no image."""
    has_test, has_val = ((given == name).any() for name in ("test", "val"))
    pool = (given == "") | (given == "train")
    num = len(np.unique(groups[pool]))
    if request.fold is not None and not has_test and num < request.folds:
        raise InputError(
            f"folds: {request.folds} of data set {request.name} are more than its {num} groups (patients, series), and "
            "a group lies in one fold: lower data.folds, or add images of others"
        )
    made_test = not has_test and (request.fold is not None or request.test_fraction > 0)
    made_val = not has_val and request.val_fraction > 0
    if num < 1 + made_test + made_val:
        wanted = ["train", *(["val"] if made_val else []), *(["test"] if made_test else [])]
        raise InputError(
            f"split {wanted[num]!r} of data set {request.name} holds no image: {', '.join(wanted)} are made of "
            f"{num} {'group' if num == 1 else 'groups'} of its images, and a group lies in one split; add images of "
            "other groups (patients, series)"
        )


def assign_groups(
    kinds: NDArray[np.float64], groups: NDArray[np.str_], shares: Sequence[float], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Give every image the number of its part, groups whole, each kind `(n, kinds)` spread nearly by `shares`.

    Greedy: groups in random order, those with the rarest and the most images first, each into the part that lacks its
    kinds most (after Sechidis et al. 2011, iterative stratification, with groups in the place of examples). All kinds
    and the number of images are weighted at once and no choice is undone, so parts miss their fractions by a few images
    even where groups would allow an exact split.
    """
    _, group_of = np.unique(groups, return_inverse=True)
    num_groups = int(group_of.max()) + 1 if len(group_of) else 0
    counts = np.zeros((num_groups, kinds.shape[1] + 1))
    np.add.at(counts, group_of, np.concatenate([kinds, np.ones((len(kinds), 1))], axis=1))
    total = np.maximum(counts.sum(axis=0), 1)
    rarity = counts / total  # so a rare class counts as much as a common one
    order = rng.permutation(num_groups)
    order = order[np.argsort(-np.round(rarity[order].sum(axis=1), 9), kind="stable")]
    lacking = np.asarray(shares, dtype=float)[:, None] * np.ones(counts.shape[1])
    part_of = np.zeros(num_groups, dtype=np.int64)
    for group in order:
        # Rounded, so that a tie falls to the first part on every processor, whatever the last bit of a sum.
        # What lacks is counted in images, not relative to the part: a kind with one group only goes to the largest part
        part = int(np.argmax(np.round(lacking @ rarity[group], 9)))
        part_of[group] = part
        lacking[part] -= rarity[group]
    return part_of[group_of]


def drop_straddlers(keys: NDArray[Any], splits: Splits) -> tuple[Splits, int]:
    """Take images out of a split whose key stands in a later one (train, val, test, extra); count the taken."""
    kept: Splits = {}
    later = keys[:0]
    for name in reversed(list(splits)):
        kept[name] = splits[name][~np.isin(keys[splits[name]], later)]
        later = np.concatenate([later, keys[splits[name]]])
    num_dropped = sum(len(splits[name]) - len(kept[name]) for name in splits)
    return {name: kept[name] for name in splits}, num_dropped


def merge_groups(groups: NDArray[np.str_], keys: NDArray[Any]) -> NDArray[np.str_]:
    """Join groups with a common key (identical files, near-duplicates): each takes its smallest member's name."""
    parent = {str(name): str(name) for name in np.unique(groups)}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first: dict[Any, str] = {}
    for name, key in zip(groups.tolist(), keys.tolist(), strict=True):
        one, other = root(name), root(first.setdefault(key, name))
        if one != other:
            parent[max(one, other)] = min(one, other)
    return np.array([root(name) for name in groups.tolist()], dtype=np.str_)


def straddling_groups(groups: NDArray[np.str_], column: NDArray[np.str_]) -> list[str]:
    """Name the groups that stand in more than one split (`column`: one word an image, "" is none)."""
    places: dict[str, set[str]] = {}
    for group, split in zip(groups.tolist(), column.tolist(), strict=True):
        if split:
            places.setdefault(group, set()).add(split)
    return sorted(group for group, found in places.items() if len(found) > 1)


def copies(names: Sequence[str], digests: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Give the names of files that have one digest, those of each such digest together."""
    same: dict[str, list[str]] = {}
    for name, digest in zip(names, digests, strict=True):
        same.setdefault(digest, []).append(name)
    return tuple(tuple(found) for found in same.values() if len(found) > 1)


def limit_images(labels: NDArray[Any], given: NDArray[np.str_], limit: int, seed: int) -> NDArray[np.int64]:
    """Choose at most `limit` images, each class of each given split by its fraction (at least one); sorted indices."""
    if limit < 1:
        raise InputError(f"limit must be at least 1 image, got {limit}")
    if limit >= len(labels):
        return np.arange(len(labels), dtype=np.int64)
    rng = np.random.default_rng([seed, 11])
    kinds = one_hot(labels)
    cells = np.unique(
        np.column_stack([given.astype("<U5"), kinds.argmax(axis=1).astype("<U8")]), axis=0, return_inverse=True
    )
    order = rng.permutation(len(labels))
    cell_of = cells[1].reshape(-1)[order]
    by_cell = np.argsort(cell_of, kind="stable")
    starts = np.searchsorted(cell_of[by_cell], np.arange(int(cell_of.max()) + 1))
    sizes = np.diff(np.append(starts, len(by_cell)))
    rank = np.empty(len(labels))
    for start, num in zip(starts, sizes, strict=True):
        # the first of every cell comes first, then all cells fill at the same relative pace
        rank[by_cell[start : start + num]] = np.arange(num) / num
    chosen = order[np.argsort(rank, kind="stable")[:limit]]
    return np.sort(chosen).astype(np.int64)


def limit_request(labels: NDArray[Any], given: NDArray[np.str_], request: Request) -> NDArray[np.int64]:
    """Choose the images that a request's `limit` leaves, sorted indices; with `whole_test` beside the whole test split.

    Raises InputError where that is asked of a set without a test split of its own.
    """
    if request.limit is None:
        return np.arange(len(labels), dtype=np.int64)
    if not request.whole_test:
        return limit_images(labels, given, request.limit, request.seed)
    test = np.flatnonzero(given == "test")
    if not len(test):
        raise InputError(f"whole_test: data set {request.name} has no test split of its own here: leave it out")
    others = np.flatnonzero(given != "test")
    chosen = others[limit_images(labels[others], given[others], request.limit, request.seed)]
    return np.sort(np.concatenate([chosen, test])).astype(np.int64)


def one_hot(labels: NDArray[Any]) -> NDArray[np.float64]:
    """Give labels as columns of counts: classes one-hot, or the positive labels (NaN counts as absent)."""
    if labels.ndim == 2:
        known: NDArray[np.float64] = np.nan_to_num(labels.astype(np.float64))
        return known
    classes = np.arange(int(labels.max()) + 1 if len(labels) else 1)
    columns: NDArray[np.float64] = (labels[:, None] == classes).astype(np.float64)
    return columns


def count_labels(labels: NDArray[Any], class_names: Sequence[str]) -> dict[str, int]:
    """Count the images of each class, or with each label; the last classes may have none."""
    counts = one_hot(labels).sum(axis=0).astype(int).tolist()
    return dict(zip(class_names, [*counts, *[0] * (len(class_names) - len(counts))], strict=True))


def absent_classes(labels: NDArray[Any], class_names: Sequence[str], splits: Splits, set_name: str) -> list[str]:
    """Say which class is absent from which split; one class an image and none of it in train is an error."""
    notes = []
    for split in SPLITS:
        if len(splits[split]) == 0:
            continue
        for name, num in count_labels(labels[splits[split]], class_names).items():
            if num == 0 and split == "train" and labels.ndim == 1:
                raise InputError(
                    f"class {name} of {set_name} has no image in train: add images or lower val_fraction, test_fraction"
                )
            if num == 0:
                notes.append(f"class {name} has no image in {split}: its AUC there is undefined")
    for note in notes:
        log.warning("%s: %s", set_name, note)
    return notes


def _check_fractions(request: Request) -> None:
    for name, share in (("val_fraction", request.val_fraction), ("test_fraction", request.test_fraction)):
        if not 0 <= share < 1:
            raise InputError(f"{name} must be at least 0 and below 1, got {share}")
    if request.val_fraction + request.test_fraction >= 1:
        raise InputError(
            "val_fraction + test_fraction must leave room for train, "
            f"got {request.val_fraction + request.test_fraction}"
        )
    if request.folds < 2:
        raise InputError(f"folds must be at least 2, got {request.folds}")
