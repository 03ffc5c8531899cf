"""Decode all files of a listing once, in parallel, into a memory-mapped cache of uint8 images `(n, size, size, c)`.

The cache also keeps content digests and the files that could not be read. It is written to a folder aside, part by
part, and renamed when complete: a process that is killed leaves no cache, and the next one goes on after its last
part. The key covers every file (name, size in bytes, modification time), the image size and the version of the
decoding code; a stale cache is replaced, which is logged, and gives the pixels of the files that are as they were.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from tempfile import mkdtemp
from types import MappingProxyType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tutelage.files import sync, sync_tree
from tutelage.records import InputError, content_id

from .containers.paths import state_of
from .dataset import Listing, Request, without_collector
from .decoded.rows import Decoded, Rows
from .decoded.stored import open_stored
from .images import Decoding, read_picture

log = logging.getLogger(__name__)

# Raise when `images.decode` gives other pixels than before for the same file.
DECODE_VERSION = 2

_IMAGES, _STATES = "images.npy", "states.npy"
_ASIDE = ".partial-"  # begins the name of a folder that is being written
_PROGRESS = "progress.jsonl"  # a line for each part that is on the disk
# Files that are decoded between two notes of progress: their pixels are held in memory until all of them are there.
_PART_BYTES = 2**26
_MIN_PART, _MAX_PART = 16, 4096


@dataclass(frozen=True)
class _Known:
    """A file that a former cache holds: its place among the files there, and among those that could be read."""

    cache: Decoded
    index: int
    row: int

    def copy_to(self, rows: Rows, index: int) -> NDArray[np.uint8]:
        """Note what is known of the file as that of file `index`, and give its pixels."""
        rows.digests[index], rows.extents[index] = self.cache.digests[self.index], self.cache.extents[self.index]
        if self.index in self.cache.remarks:
            rows.remarks[index] = self.cache.remarks[self.index]
        pixels: NDArray[np.uint8] = self.cache.images[self.row]
        return pixels


_NOTHING: Mapping[int, _Known] = MappingProxyType({})


def _known(former: Sequence[Path], states: NDArray[np.str_]) -> dict[int, _Known]:
    """Find the files, by index, that whole caches of the same set hold in the state that they have now."""
    places = {state: index for index, state in enumerate(states.tolist())}
    found: dict[int, _Known] = {}
    for folder in former:
        if folder.name.startswith(_ASIDE) or not (folder / _STATES).is_file():
            continue
        cache = _open(folder)
        if cache is None or json.loads((folder / "meta.json").read_text())["version"] != DECODE_VERSION:
            continue
        rows = iter(range(len(cache.images)))
        for index, state in enumerate(np.load(folder / _STATES, allow_pickle=False).tolist()):
            row = -1 if index in cache.errors else next(rows)
            if row >= 0 and state in places:
                found[places[state]] = _Known(cache, index, row)
    return found


def decode_all(listing: Listing, request: Request) -> Decoded:
    """Decode every file of a listing; with `request.cache`, take them from disk, or put them there."""
    if request.cache is None:
        n, size = len(listing.paths), request.size
        images = np.zeros((n, size, size, request.channels), dtype=np.uint8)
        rows = Rows.empty(n)
        num_read = 0
        for part in _parts(0, listing, request):
            pixels = _decode(part, rows, listing, request)
            images[num_read : num_read + len(pixels)] = pixels
            num_read += len(pixels)
        return rows.decoded(images[:num_read])
    home = _home(request.cache, listing, request)
    whole = home / _key(listing, request)
    found = _open(whole)
    if found is not None:
        return found
    stale = [old for old in sorted(home.glob("*")) if old.name != f"{_ASIDE}{whole.name}"] if home.is_dir() else []
    if any(not old.name.startswith(_ASIDE) for old in stale):
        log.warning("decoded images of %s at %s are stale (files or code changed): rebuilt", request.name, home)
    built = _build(whole, listing, request, stale)
    for old in stale:
        with suppress(BlockingIOError, FileNotFoundError), alone(old):  # not one that another process writes
            shutil.rmtree(old, ignore_errors=True)
    return built


def _home(cache: Path, listing: Listing, request: Request) -> Path:
    """Name the folder of what is decoded of one set in one way; a later state of its files replaces what is there.

    Where no `limit` draws images the seed changes nothing: a home that is named by it is one of earlier versions.
    """
    place = [str(listing.root.resolve()), request.size, request.channels, _how(request), request.limit]
    drawn = ["whole test"] if request.whole_test else []
    seeded = cache / f"{request.name}-{content_id([*place, request.seed, *drawn])}"
    if request.limit is not None or seeded.is_dir():
        return seeded
    return cache / f"{request.name}-{content_id([*place, *drawn])}"


def _key(listing: Listing, request: Request) -> str:
    """Hash all that the pixels depend on, from what the file system says; files are not opened."""
    with without_collector():
        rows = [(str(path.absolute()), *state_of(path)) for path in listing.paths]
        return content_id([DECODE_VERSION, request.size, request.channels, _how(request), rows])


def _states(listing: Listing) -> NDArray[np.str_]:
    """Give a hash of each file's place, size and time of change `(n,)`: by it its pixels are found again."""
    return np.array([content_id([str(path.absolute()), *state_of(path)]) for path in listing.paths], dtype="<U16")


def _open(folder: Path) -> Decoded | None:
    """Open a whole cache read-only; None where there is none, or its files are not what they should be."""
    if not folder.is_dir():
        return None
    try:
        meta = json.loads((folder / "meta.json").read_text())
        digests = np.load(folder / "digests.npy", allow_pickle=False)
        extents = np.load(folder / "extents.npy", allow_pickle=False)
        errors = {int(index): text for index, text in meta["errors"].items()}
        whole = folder / _IMAGES
        # No memory map is empty.
        images = open_stored(whole) if len(errors) < len(digests) else np.load(whole, allow_pickle=False)
        if len(images) != len(digests) - len(errors):
            raise ValueError("it holds rows of files that cannot be read, as earlier versions left them")
    except (OSError, ValueError) as error:
        log.warning("decoded images at %s are damaged (%s): rebuilt", folder, str(error).splitlines()[0])
        shutil.rmtree(folder, ignore_errors=True)
        return None
    remarks = {int(index): tuple(texts) for index, texts in meta["remarks"].items()}
    return Decoded(images, digests, errors, extents, remarks)


def _build(whole: Path, listing: Listing, request: Request, former: Sequence[Path]) -> Decoded:
    """Decode into a folder aside, which a build that was killed left for the next, sync it, give it its name."""
    aside = whole.parent / f"{_ASIDE}{whole.name}"
    try:
        aside.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(alone(aside))
            except BlockingIOError:  # another process decodes the same: each on its own, the first one's is kept
                aside = Path(mkdtemp(prefix=f"{aside.name}.", dir=whole.parent))
                stack.enter_context(alone(aside))
            if not whole.exists():
                _fill(aside, listing, request, former)
            if whole.exists():  # another process was first
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.rename(whole)
                sync(whole.parent)
    except OSError as error:
        if not whole.is_dir():  # else another process gave it the name a moment ago
            raise InputError(f"cannot write decoded images to {whole.parent}: {error.strerror or error}") from None
        shutil.rmtree(aside, ignore_errors=True)
    found = _open(whole)
    assert found is not None
    return found


def _fill(aside: Path, listing: Listing, request: Request, former: Sequence[Path]) -> None:
    """Write the files of a cache: the pixels of what can be read, part by part, then all that is known of each file."""
    states, num = _states(listing), len(listing.paths)
    known = _known(former, states)
    header = _header(num, request)
    with (aside / _IMAGES).open("r+b" if (aside / _IMAGES).is_file() else "w+b") as pixels:
        rows, done = Rows.resumed(aside / _PROGRESS, num)
        row_bytes = request.size**2 * request.channels
        if os.fstat(pixels.fileno()).st_size < len(header) + (done - len(rows.errors)) * row_bytes:
            (aside / _PROGRESS).unlink(missing_ok=True)  # somebody cut the pixels
            rows, done = Rows.empty(num), 0
        if done:
            log.info("decoded images of %s: going on after %d of %d files", request.name, done, num)
        num_read = done - len(rows.errors)
        pixels.truncate(len(header) + num_read * row_bytes)
        pixels.write(header)
        pixels.seek(0, os.SEEK_END)
        with (aside / _PROGRESS).open("a") as progress:
            for part in _parts(done, listing, request):
                decoded = _decode(part, rows, listing, request, known)
                pixels.write(decoded.data)
                _to_disk(pixels)  # a part that is noted as done is on the disk
                progress.write(rows.line(part))
                _to_disk(progress)
                num_read += len(decoded)
        shorter = _header(num_read, request)
        assert len(shorter) == len(header), (
            "numpy pads headers, so that the number of rows does not change their length"
        )
        pixels.seek(0)
        pixels.write(shorter)
    np.save(aside / "digests.npy", rows.digests, allow_pickle=False)
    np.save(aside / "extents.npy", rows.extents, allow_pickle=False)
    np.save(aside / _STATES, states, allow_pickle=False)
    meta = {"errors": rows.errors, "remarks": rows.remarks, "version": DECODE_VERSION}
    (aside / "meta.json").write_text(json.dumps(meta))
    (aside / _PROGRESS).unlink()
    sync_tree(aside)


def _parts(done: int, listing: Listing, request: Request) -> Iterator[range]:
    """Divide what is not done yet into parts whose pixels take little memory."""
    size = min(_MAX_PART, max(_MIN_PART, _PART_BYTES // (request.size**2 * request.channels)))
    num = len(listing.paths)
    yield from (range(start, min(start + size, num)) for start in range(done, num, size))


def _decode(
    part: range, rows: Rows, listing: Listing, request: Request, known: Mapping[int, _Known] = _NOTHING
) -> NDArray[np.uint8]:
    """Decode files into `rows`; give the pixels of those that can be read. What is `known` is taken from there.

    Threads do it: the decoders, resizing and hashing release Python's lock (GIL).
    """
    how = Decoding.of(request.options)
    pixels = np.zeros((len(part), request.size, request.size, request.channels), dtype=np.uint8)

    # One iterator for all threads: they work within a few files of each other, so that a row group or an archive is
    # read in order, and each holds one picture.
    places = iter(part)

    def work(_: int) -> None:
        """Decode what no other thread has taken, until nothing is left."""
        for index in places:
            if index in known:
                pixels[index - part.start] = known[index].copy_to(rows, index)
                continue
            try:
                picture = read_picture(listing.paths[index], request.size, request.channels, how)
            except InputError as error:
                rows.errors[index] = str(error)
                continue
            pixels[index - part.start], rows.digests[index] = picture.pixels, picture.digest
            if picture.extent is not None and picture.limits is not None:
                rows.extents[index] = (*picture.extent, *picture.limits)
            if picture.remarks:
                rows.remarks[index] = picture.remarks

    num_threads = max(1, request.workers)
    with ThreadPoolExecutor(max_workers=num_threads) as threads:
        for _ in threads.map(work, range(num_threads)):
            pass
    good = [index - part.start for index in part if index not in rows.errors]
    return pixels if len(good) == len(part) else pixels[good]


def _header(num: int, request: Request) -> bytes:
    """Give the head of a .npy file of `num` images."""
    head = BytesIO()
    shape = (num, request.size, request.size, request.channels)
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return head.getvalue()


def _to_disk(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; raises BlockingIOError where another one is in it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _how(request: Request) -> Any:
    return asdict(Decoding.of(request.options))
