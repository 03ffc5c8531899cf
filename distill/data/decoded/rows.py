"""What decoding says of each file of a listing: `Decoded`, and `Rows`, which are written down part by part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.data.dataset import Listing, Request
from tutelage.distill.data.images import Decoding
from tutelage.distill.data.reading.pixels import unused_range
from tutelage.distill.data.reading.suffixes import looks_like_dicom
from tutelage.records import InputError


@dataclass(frozen=True)
class Decoded:
    """Images uint8 `(m, size, size, c)` of what could be read; a digest and extents a file `(n,)`.

    `errors` (one line, names the file) are by index: of those files there is no image. `extents` `(n, 4)` are the least
    and largest value of pixels of more than 8 bits and the range that scaled them, NaN for 8-bit files;
    `remarks` are those of `images.Picture` by index.
    """

    images: NDArray[np.uint8]
    digests: NDArray[np.str_]
    errors: Mapping[int, str]
    extents: NDArray[np.float64]
    remarks: Mapping[int, tuple[str, ...]]

    def readable(self) -> Decoded:
        """Leave out the files that could not be read. The images are the same array: a memory map is not copied."""
        good = np.setdiff1d(np.arange(len(self.digests)), list(self.errors))
        remarks = {new: self.remarks[old] for new, old in enumerate(good.tolist()) if old in self.remarks}
        return Decoded(self.images, self.digests[good], {}, self.extents[good], remarks)

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


@dataclass
class Rows:
    """What is known of each file, in the order of the listing, as far as they are decoded."""

    digests: NDArray[np.str_]
    extents: NDArray[np.float64]
    errors: dict[int, str]
    remarks: dict[int, tuple[str, ...]]

    @classmethod
    def empty(cls, num: int) -> Rows:
        return cls(np.full(num, "", dtype="<U16"), np.full((num, 4), np.nan), {}, {})

    @classmethod
    def resumed(cls, progress: Path, num: int) -> tuple[Rows, int]:
        """Read what an earlier build noted, and how many files that are; a line that a kill tore counts for nothing."""
        rows, done = cls.empty(num), 0
        lines = progress.read_bytes().splitlines(keepends=True) if progress.is_file() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        for line in whole:
            part = json.loads(line)
            done, stop = part["stop"], part["stop"]
            rows.digests[part["start"] : stop] = part["digests"]
            rows.errors |= {int(index): text for index, text in part["errors"].items()}
            rows.remarks |= {int(index): tuple(texts) for index, texts in part["remarks"].items()}
            for index, extent in part["extents"].items():
                rows.extents[int(index)] = extent
        if len(whole) < len(lines):
            with progress.open("r+b") as file:
                file.truncate(sum(map(len, whole)))
        return rows, done

    def line(self, part: range) -> str:
        """Write down a part for `resumed`."""
        extents = {index: self.extents[index].tolist() for index in part if not np.isnan(self.extents[index, 0])}
        said = {
            "start": part.start, "stop": part.stop, "digests": self.digests[part.start : part.stop].tolist(),
            "errors": {index: self.errors[index] for index in part if index in self.errors},
            "remarks": {index: self.remarks[index] for index in part if index in self.remarks},
            "extents": extents,
        }  # fmt: skip
        return json.dumps(said) + "\n"

    def decoded(self, images: NDArray[np.uint8]) -> Decoded:
        return Decoded(images, self.digests, dict(sorted(self.errors.items())), self.extents,
                       dict(sorted(self.remarks.items())))  # fmt: skip
