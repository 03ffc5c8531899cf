"""Decode all files of a listing once, in parallel, into a memory-mapped cache of uint8 images `(n, size, size, c)`.

The cache also keeps content digests and the files that could not be read. It is written to a temporary folder, synced
and renamed when complete, so a killed process leaves no partial cache. Its key covers every file (name, size in bytes,
modification time), the image size and the version of the decoding code; a stale cache is rebuilt and logged.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.files import sync, sync_tree
from tutelage.records import InputError, content_id

from .containers.paths import state_of
from .dataset import Listing, Request
from .images import Decoding, read_picture
from .reading.pixels import unused_range
from .reading.suffixes import looks_like_dicom

log = logging.getLogger(__name__)

# Raise when `images.decode` gives other pixels than before for the same file.
DECODE_VERSION = 2


@dataclass(frozen=True)
class Decoded:
    """Images uint8 `(n, size, size, c)`, a digest a file, and errors (one line, names the file) by index.

    `extents` `(n, 4)` are the least and largest value of pixels of more than 8 bits and the range that scaled them,
    NaN for 8-bit files; `remarks` are those of `images.Picture` by index.
    """

    images: NDArray[np.uint8]
    digests: NDArray[np.str_]
    errors: Mapping[int, str]
    extents: NDArray[np.float64]
    remarks: Mapping[int, tuple[str, ...]]

    def take(self, chosen: NDArray[np.int64]) -> Decoded:
        """Keep some images, by index; those with errors must not be among them."""
        remarks = {new: self.remarks[old] for new, old in enumerate(chosen.tolist()) if old in self.remarks}
        return Decoded(self.images[chosen], self.digests[chosen], {}, self.extents[chosen], remarks)

    def notes(self, listing: Listing, request: Request) -> list[str]:
        """Say what decoding did about what is odd; an option that has no effect on any file is an InputError."""
        how, deep = Decoding.of(request.options), ~np.isnan(self.extents[:, 0])
        dicom = [index for index in np.flatnonzero(deep).tolist() if looks_like_dicom(listing.paths[index])]
        if how.range is not None and not deep.any():
            raise InputError(f"range: {list(how.range)} has no effect: no picture has more than 8 bits; leave it out")
        if how.window != "tag" and not dicom:
            raise InputError(f"window: {how.window} has no effect: no file is DICOM; leave it out, or say range")
        found: dict[str, list[int]] = {}
        for index, remarks in self.remarks.items():
            for remark in remarks:
                found.setdefault(remark, []).append(index)
        notes = [f"{len(at)} pictures {remark}, e.g. {listing.paths[at[0]].name}" for remark, at in found.items()]
        if how.range is None and how.window == "tag":
            windows = len(np.unique(self.extents[dicom, 2:], axis=0))
            if windows > 1:
                notes.append(f"{windows} DICOM windows differ between files, so equal values may differ in brightness: "
                             "state one data.options.range or window for the data set")  # fmt: skip
            others = self.extents[np.setdiff1d(np.flatnonzero(deep), dicom)]
            for limits in np.unique(others[:, 2:], axis=0):
                same = others[(others[:, 2:] == limits).all(axis=1)]
                unused = unused_range(same[:, 0].min(), same[:, 1].max(), (limits[0], limits[1]))
                notes += [unused] if unused else []
        return notes


def decode_all(listing: Listing, request: Request) -> Decoded:
    """Decode every file of a listing; with `request.cache`, take them from disk, or put them there."""
    if request.cache is None:
        n, size = len(listing.paths), request.size
        images = np.zeros((n, size, size, request.channels), dtype=np.uint8)
        return _fill(images, listing, request)
    place = [str(listing.root.resolve()), request.size, request.channels, _how(request), request.limit, request.seed]
    place += ["whole test"] if request.whole_test else []
    home = request.cache / f"{request.name}-{content_id(place)}"
    whole = home / _key(listing, request)
    found = _open(whole)
    if found is not None:
        return found
    stale = sorted(home.glob("*")) if home.is_dir() else []
    if any(not old.name.startswith(".partial") for old in stale):
        log.warning("decoded images of %s at %s are stale (files or code changed): rebuilt", request.name, home)
    built = _build(whole, listing, request)
    for old in stale:
        if old != whole and not _being_written(old):
            shutil.rmtree(old, ignore_errors=True)
    return built


def _key(listing: Listing, request: Request) -> str:
    """Hash all that the pixels depend on, from what the file system says; files are not opened."""
    rows: list[Any] = []
    for path in listing.paths:
        rows.append([str(path.absolute()), *state_of(path)])
    return content_id([DECODE_VERSION, request.size, request.channels, _how(request), rows])


def _open(folder: Path) -> Decoded | None:
    """Open a whole cache read-only; None where there is none, or its files are not what they should be."""
    if not folder.is_dir():
        return None
    try:
        meta = json.loads((folder / "meta.json").read_text())
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        digests = np.load(folder / "digests.npy", allow_pickle=False)
        extents = np.load(folder / "extents.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        log.warning("decoded images at %s are damaged (%s): rebuilt", folder, str(error).splitlines()[0])
        shutil.rmtree(folder, ignore_errors=True)
        return None
    errors = {int(index): text for index, text in meta["errors"].items()}
    remarks = {int(index): tuple(texts) for index, texts in meta["remarks"].items()}
    return Decoded(images, digests, errors, extents, remarks)


def _build(whole: Path, listing: Listing, request: Request) -> Decoded:
    """Decode into a folder aside, sync it, give it its name."""
    aside = whole.parent / f".partial-{os.getpid()}-{whole.name}"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        shape = (len(listing.paths), request.size, request.size, request.channels)
        images = np.lib.format.open_memmap(aside / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
        made = _fill(images, listing, request)
        images.flush()
        del images
        np.save(aside / "digests.npy", made.digests, allow_pickle=False)
        np.save(aside / "extents.npy", made.extents, allow_pickle=False)
        meta = {"errors": made.errors, "remarks": made.remarks, "version": DECODE_VERSION}
        (aside / "meta.json").write_text(json.dumps(meta))
        sync_tree(aside)
        if not whole.exists():  # another process may have built the same meanwhile
            aside.rename(whole)
        sync(whole.parent)
    except OSError as error:
        raise InputError(f"cannot write decoded images to {whole.parent}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    found = _open(whole)
    assert found is not None
    return found


def _fill(images: NDArray[np.uint8], listing: Listing, request: Request) -> Decoded:
    """Decode every file into its place. Threads do: the decoders, resizing and hashing release Python's lock (GIL)."""
    digests = np.full(len(listing.paths), "", dtype="<U16")
    extents = np.full((len(listing.paths), 4), np.nan)
    errors: dict[int, str] = {}
    remarks: dict[int, tuple[str, ...]] = {}
    how = Decoding.of(request.options)

    # One iterator for all threads: they work within a few files of each other, so that a row group or an archive is
    # read in order, and each holds one picture.
    places = iter(range(len(listing.paths)))

    def work(_: int) -> None:
        """Decode what no other thread has taken, until nothing is left."""
        for index in places:
            try:
                picture = read_picture(listing.paths[index], request.size, request.channels, how)
            except InputError as error:
                errors[index] = str(error)
                continue
            images[index], digests[index] = picture.pixels, picture.digest
            if picture.extent is not None and picture.limits is not None:
                extents[index] = (*picture.extent, *picture.limits)
            if picture.remarks:
                remarks[index] = picture.remarks

    num_threads = max(1, request.workers)
    with ThreadPoolExecutor(max_workers=num_threads) as threads:
        for _ in threads.map(work, range(num_threads)):
            pass
    return Decoded(images, digests, dict(sorted(errors.items())), extents, dict(sorted(remarks.items())))


def _how(request: Request) -> Any:
    return asdict(Decoding.of(request.options))


def _being_written(folder: Path) -> bool:
    """Tell whether a folder aside belongs to a process that lives."""
    if not folder.name.startswith(".partial-"):
        return False
    owner = int(folder.name.split("-")[1])
    return owner != os.getpid() and Path(f"/proc/{owner}").exists()
