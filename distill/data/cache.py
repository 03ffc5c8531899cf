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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.files import sync, sync_tree
from tutelage.records import InputError, content_id

from .dataset import Listing, Request
from .images import decode

log = logging.getLogger(__name__)

# Raise when `images.decode` gives other pixels than before for the same file.
DECODE_VERSION = 1

# Files a thread takes at a time: memory in flight is threads x one picture, whatever the set's size.
_CHUNK = 64


@dataclass(frozen=True)
class Decoded:
    """Images uint8 `(n, size, size, c)`, a digest a file, and errors (one line, names the file) by index."""

    images: NDArray[np.uint8]
    digests: NDArray[np.str_]
    errors: Mapping[int, str]

    def take(self, chosen: NDArray[np.int64]) -> Decoded:
        """Keep some images, by index; those with errors must not be among them."""
        return Decoded(self.images[chosen], self.digests[chosen], {})


def decode_all(listing: Listing, request: Request) -> Decoded:
    """Decode every file of a listing; with `request.cache`, take them from disk, or put them there."""
    if request.cache is None:
        n, size = len(listing.paths), request.size
        images = np.zeros((n, size, size, request.channels), dtype=np.uint8)
        digests, errors = _fill(images, listing, request)
        return Decoded(images, digests, errors)
    place = [str(listing.root.resolve()), request.size, request.channels, _fit(request), request.limit, request.seed]
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
    for name, path in zip(listing.names(), listing.paths, strict=True):
        stat = path.stat()
        rows.append([name, stat.st_size, stat.st_mtime_ns])
    return content_id([DECODE_VERSION, request.size, request.channels, _fit(request), rows])


def _open(folder: Path) -> Decoded | None:
    """Open a whole cache read-only; None where there is none, or its files are not what they should be."""
    if not folder.is_dir():
        return None
    try:
        meta = json.loads((folder / "meta.json").read_text())
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        digests = np.load(folder / "digests.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        log.warning("decoded images at %s are damaged (%s): rebuilt", folder, str(error).splitlines()[0])
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return Decoded(images, digests, {int(index): text for index, text in meta["errors"].items()})


def _build(whole: Path, listing: Listing, request: Request) -> Decoded:
    """Decode into a folder aside, sync it, give it its name."""
    aside = whole.parent / f".partial-{os.getpid()}-{whole.name}"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        shape = (len(listing.paths), request.size, request.size, request.channels)
        images = np.lib.format.open_memmap(aside / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
        digests, errors = _fill(images, listing, request)
        images.flush()
        del images
        np.save(aside / "digests.npy", digests, allow_pickle=False)
        (aside / "meta.json").write_text(json.dumps({"errors": errors, "version": DECODE_VERSION}))
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


def _fill(images: NDArray[np.uint8], listing: Listing, request: Request) -> tuple[NDArray[np.str_], dict[int, str]]:
    """Decode every file into its place. Threads do: the decoders, resizing and hashing let go of Python's lock."""
    digests = np.full(len(listing.paths), "", dtype="<U16")
    errors: dict[int, str] = {}
    fit = _fit(request)

    def work(start: int) -> None:
        for index in range(start, min(start + _CHUNK, len(listing.paths))):
            try:
                images[index], digests[index] = decode(listing.paths[index], request.size, request.channels, fit=fit)
            except InputError as error:
                errors[index] = str(error)

    with ThreadPoolExecutor(max_workers=max(1, request.workers)) as threads:
        for _ in threads.map(work, range(0, len(listing.paths), _CHUNK)):
            pass
    return digests, dict(sorted(errors.items()))


def _fit(request: Request) -> Any:
    return request.options.get("fit", "squash")


def _being_written(folder: Path) -> bool:
    """Tell whether a folder aside belongs to a process that lives."""
    if not folder.name.startswith(".partial-"):
        return False
    owner = int(folder.name.split("-")[1])
    return owner != os.getpid() and Path(f"/proc/{owner}").exists()
