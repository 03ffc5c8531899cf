"""Make a `Dataset` of a `Listing` of files: decode once, refuse or count unreadable files, group duplicates, split.

The manifest hash of the data set covers its files, labels and splits.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.data.sets.lc25000 import group_near_duplicates
from tutelage.records import InputError

from .cache import decode_all
from .dataset import Dataset, Listing, Request, manifest_hash, split_column, without_collector
from .decoded.rows import Decoded
from .slices import group_slices, nearest_across
from .splits import (
    absent_classes,
    check_groups,
    drop_straddlers,
    limit_request,
    make_splits,
    merge_groups,
    straddling_groups,
)

log = logging.getLogger(__name__)


def assemble(listing: Listing, request: Request) -> Dataset:
    """Decode a listing and split it. A file that cannot be read is refused, or counted when `skip_bad`."""
    listing = _chosen(listing, request)
    decoded = decode_all(listing, request)
    with without_collector():
        return arrange(listing, decoded, request)


def outline(found: Listing | Dataset, request: Request) -> Dataset:
    """Give what is known of a data set before its files are decoded: all but its images `(0, h, w, c)` and splits.

    Raises InputError for files that are missing and groups that are too few, as `assemble` would.
    """
    if isinstance(found, Dataset):
        return found
    listing = _chosen(found, request)
    if listing.slices is None and not request.leaky:  # blocks of slices are made of decoded images
        check_groups(listing.groups, listing.splits, request)
    return Dataset(
        name=request.name,
        title=request.title,
        images=np.empty((0, request.size, request.size, request.channels), dtype=np.uint8),
        labels=listing.labels,
        class_names=listing.class_names,
        groups=listing.groups,
        splits={},
        multi_label=listing.multi_label,
        leaky=request.leaky,
        notes=listing.notes,
    )


def _chosen(listing: Listing, request: Request) -> Listing:
    """Take the images that `limit` leaves; refuse a listing without any, or with files that are not there."""
    if len(listing.paths) == 0:
        raise InputError(f"no image found at {listing.root} for data set {request.name}")
    if request.limit is not None:
        listing = listing.take(limit_request(listing.labels, listing.splits, request))
    if listing.missing and not request.skip_bad:
        raise InputError(
            f"{listing.missing[0]} is listed and not there ({len(listing.missing)} such) below {listing.root}: "
            "add the files, or set skip_bad"
        )
    return listing


def only_test(found: Listing | Dataset, request: Request) -> Dataset:
    """Make a data set that is one test split: what the set calls test, or all of it where it has no such split.

    Raises InputError as `assemble` does.
    """
    if isinstance(found, Dataset):
        test = found.splits.get("test", np.empty(0, dtype=np.int64))
        return replace(found, masks=None, splits={"test": test if len(test) else np.arange(len(found.labels))})
    tests = np.flatnonzero(found.splits == "test")
    listing = _chosen(found.take(tests) if len(tests) else found, request)
    listing, decoded, skipped = _leave_out(listing, decode_all(listing, request), request)
    groups, notes = _grouped(listing, decoded)
    notes = [*listing.notes, *decoded.notes(listing, request), *notes]
    return _dataset(listing, decoded, request, groups, {"test": np.arange(len(groups))}, notes, skipped)


def arrange(listing: Listing, decoded: Decoded, request: Request) -> Dataset:
    """Make a data set of decoded files: leave bad ones out, group copies, split; InputError where that cannot be."""
    listing, decoded, skipped = _leave_out(listing, decoded, request)
    notes = [*listing.notes, *decoded.notes(listing, request)]
    if skipped:
        notes.append(f"{len(skipped)} unreadable files were left out")
    if listing.missing:
        notes.append(f"{len(listing.missing)} listed files are not there and were left out")
        skipped = (*skipped, *listing.missing)
    notes += _contradictions(listing, decoded)
    groups, group_notes = _grouped(listing, decoded)
    notes += group_notes
    splits = make_splits(listing.labels, groups, listing.splits, request)
    leaky = request.leaky
    if leaky:
        notes.append("image-level split: groups straddle splits (leaky, as in the literature)")
    else:
        splits, num_dropped = drop_straddlers(groups, splits)
        if num_dropped:
            notes.append(f"{num_dropped} images whose group or exact copy stands in a later split were left out")
    for split, fraction in (("train", 1.0), ("val", request.val_fraction), ("test", request.test_fraction)):
        if fraction > 0 and len(splits[split]) == 0:
            raise InputError(
                f"split {split!r} of data set {request.name} holds no image: its {len(groups)} images are "
                f"{len(np.unique(groups))} groups; add some, raise its fraction or the limit"
            )
    assert leaky or not straddling_groups(groups, split_column(splits, len(listing.paths)))
    notes += absent_classes(listing.labels, listing.class_names, splits, request.name)
    return _dataset(listing, decoded, request, groups, splits, notes, skipped)


def _dataset(
    listing: Listing,
    decoded: Decoded,
    request: Request,
    groups: NDArray[np.str_],
    splits: dict[str, NDArray[np.int64]],
    notes: list[str],
    skipped: tuple[str, ...],
) -> Dataset:
    """Make a data set of the files of a listing, all of which could be read."""
    names = np.array(listing.names(), dtype=np.str_)
    column = split_column(splits, len(listing.paths))
    return Dataset(
        name=request.name,
        title=request.title,
        images=decoded.images,
        labels=listing.labels,
        class_names=listing.class_names,
        groups=groups,
        splits=splits,
        multi_label=listing.multi_label,
        leaky=request.leaky,
        manifest=manifest_hash(names, listing.labels.tolist(), groups, column, decoded.digests, origin=listing.origin),
        notes=tuple(notes),
        skipped=skipped,
        names=names,
    )


def _grouped(listing: Listing, decoded: Decoded) -> tuple[NDArray[np.str_], list[str]]:
    """Give the groups with copies joined: exact ones always, near-duplicates and blocks of slices where asked."""
    groups, notes = listing.groups, []
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
    return groups, notes


def _contradictions(listing: Listing, decoded: Decoded) -> list[str]:
    """Say how many images stand in several classes: one file's bytes under two labels."""
    first: dict[str, int] = {}
    names = []
    for index, digest in enumerate(decoded.digests.tolist()):
        before = first.setdefault(digest, index)
        if before < index and not np.array_equal(
            listing.labels[before], listing.labels[index], equal_nan=listing.multi_label
        ):
            names.append((before, index))
    if not names:
        return []
    one, other = (listing.paths[index].name for index in names[0])
    return [f"{len(names)} files are copies of one with another label, e.g. {one} and {other}: one label is wrong"]


def _leave_out(listing: Listing, decoded: Decoded, request: Request) -> tuple[Listing, Decoded, tuple[str, ...]]:
    """Refuse bad files, or take them out of the listing and of what was decoded; give their names, too."""
    if not decoded.errors:
        return listing, decoded, ()
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
    return listing.take(good), decoded.readable(), skipped
