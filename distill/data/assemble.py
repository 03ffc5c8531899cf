"""Make a `Dataset` of a `Listing` of files: decode once, refuse or count unreadable files, group duplicates, split.

The manifest hash of the data set covers its files, labels and splits.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.data.sets.lc25000 import group_near_duplicates
from tutelage.records import InputError

from .cache import Decoded, decode_all
from .dataset import SPLITS, Dataset, Listing, Request, manifest_hash, split_column
from .slices import group_slices, nearest_across
from .splits import drop_straddlers, limit_images, make_splits, merge_groups, one_hot, straddling_groups

log = logging.getLogger(__name__)


def assemble(listing: Listing, request: Request) -> Dataset:
    """Decode a listing and split it. A file that cannot be read is refused, or counted when `skip_bad`."""
    if len(listing.paths) == 0:
        raise InputError(f"no image found at {listing.root} for data set {request.name}")
    if request.limit is not None:
        listing = listing.take(limit_images(listing.labels, listing.splits, request.limit, request.seed))
    if listing.missing and not request.skip_bad:
        raise InputError(
            f"{listing.missing[0]} is listed and not there ({len(listing.missing)} such) below {listing.root}: "
            "add the files, or set skip_bad"
        )
    decoded = decode_all(listing, request)
    skipped: tuple[str, ...] = ()
    if decoded.errors:
        listing, decoded, skipped = _leave_out(listing, decoded, request)
    notes = list(listing.notes)
    if skipped:
        notes.append(f"{len(skipped)} unreadable files were left out")
    if listing.missing:
        notes.append(f"{len(listing.missing)} listed files are not there and were left out")
        skipped = (*skipped, *listing.missing)
    groups = listing.groups
    if listing.slices is not None:
        sequences = np.array([listing.class_names[label] for label in listing.labels])
        groups = group_slices(decoded.images, sequences, listing.slices, listing.block)
        across = nearest_across(decoded.images, groups)
        notes.append(f"{across:.1%} of the slices have their nearest neighbour (32 px) in another block")
    groups = merge_groups(groups, decoded.digests)
    if listing.near_duplicates is not None:
        # Multi-label copies may lack a label, so they are looked for among all images.
        kinds = np.zeros(len(listing.paths), dtype=np.int64) if listing.multi_label else listing.labels
        near = group_near_duplicates(decoded.images, kinds, listing.near_duplicates)
        groups = merge_groups(groups, near)
        notes.append(f"{len(np.unique(groups))} groups of near-duplicates among {len(groups)} images")
    splits = make_splits(listing.labels, groups, listing.splits, request)
    leaky = request.leaky
    if leaky:
        notes.append("image-level split: groups straddle splits (leaky, as in the literature)")
    else:
        splits, num_dropped = drop_straddlers(groups, splits)
        if num_dropped:
            notes.append(f"{num_dropped} images whose group or exact copy stands in a later split were left out")
    column = split_column(splits, len(listing.paths))
    assert leaky or not straddling_groups(groups, column)
    notes += _absent_classes(listing, splits, request)
    names = np.array(listing.names(), dtype=np.str_)
    return Dataset(
        name=request.name,
        images=decoded.images,
        labels=listing.labels,
        class_names=listing.class_names,
        groups=groups,
        splits=splits,
        multi_label=listing.multi_label,
        leaky=leaky,
        manifest=manifest_hash(names, listing.labels.tolist(), groups, column, decoded.digests),
        notes=tuple(notes),
        skipped=skipped,
        names=names,
    )


def _leave_out(listing: Listing, decoded: Decoded, request: Request) -> tuple[Listing, Decoded, tuple[str, ...]]:
    """Refuse bad files, or take them out of the listing and of what was decoded."""
    bad = sorted(decoded.errors)
    first = decoded.errors[bad[0]]
    if not request.skip_bad:
        more = f" (and {len(bad) - 1} more; `tutelage data check` lists them all)" if len(bad) > 1 else ""
        raise InputError(f"{first}{more}: repair or remove it, or set skip_bad")
    for index in bad:
        log.warning("left out: %s", decoded.errors[index])
    good = np.setdiff1d(np.arange(len(listing.paths)), bad)
    if len(good) == 0:
        raise InputError(f"no readable image at {listing.root}: all {len(bad)} are damaged, the first: {first}")
    skipped = tuple(listing.names()[index] for index in bad)
    return listing.take(good), decoded.take(good), skipped


def _absent_classes(listing: Listing, splits: dict[str, NDArray[np.int64]], request: Request) -> list[str]:
    """Say which class is absent from which split; one class an image and none of it in train is an error."""
    labels: NDArray[Any] = listing.labels
    notes = []
    for split in SPLITS:
        if len(splits[split]) == 0:
            continue
        num_images = one_hot(labels)[splits[split]].sum(axis=0)
        for name, num in zip(listing.class_names, num_images, strict=False):
            if num == 0 and split == "train" and not listing.multi_label:
                raise InputError(
                    f"class {name} of {request.name} has no image in train: "
                    "add images or lower val_fraction, test_fraction"
                )
            if num == 0:
                notes.append(f"class {name} has no image in {split}: its AUC there is undefined")
    for note in notes:
        log.warning("%s: %s", request.name, note)
    return notes
