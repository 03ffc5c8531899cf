"""Group slices of unnamed patients: neighbouring slices stay together, and groups end between patients.

`group_slices` splits each numbered sequence into blocks; `nearest_across` measures the leakage that remains.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .images import to_channels

_THUMBNAIL = 32  # pixels: the image size at which two slices are compared


def group_slices(
    images: NDArray[np.uint8], sequences: NDArray[np.str_], numbers: NDArray[np.int64], block: int
) -> NDArray[np.str_]:
    """Name a group for each slice `(n, s, s, c)`: about `block` neighbours of one sequence, split between patients.

    A sequence (a class folder) is halved again and again until its parts hold at most 3/2 `block` slices, none fewer
    than half a block. Each split falls where the fewest slices have their nearest neighbour (of the sequence, in pixels
    at 32 px) across it, and of such places where two neighbours differ most: between two patients, since a
    slice is most like the others of its own.
    """
    features = thumbnails(images)
    groups = np.empty(len(images), dtype="<U64")
    for sequence in np.unique(sequences):
        chosen = np.flatnonzero(sequences == sequence)
        chosen = chosen[np.argsort(numbers[chosen], kind="stable")]
        starts = _cuts(features[chosen], block)
        for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(chosen)], strict=True)):
            groups[chosen[start:stop]] = f"{sequence}/block{number:04d}"
    return groups.astype(np.str_)


def nearest_across(images: NDArray[np.uint8], groups: NDArray[np.str_]) -> float:
    """Give the fraction of images whose nearest neighbour, in pixels at 32 px, stands in another group."""
    features = thumbnails(images)
    nearest = _nearest(features)
    return float(np.mean(groups != groups[nearest])) if len(images) > 1 else 0.0


def thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Shrink images `(n, s, s, c)` to gray ones of at most 32 px by averaging, one row each."""
    size = images.shape[1]
    edges = np.linspace(0, size, min(_THUMBNAIL, size) + 1).astype(np.int64)[:-1]
    rows = []
    for start in range(0, len(images), 256):
        gray = to_channels(np.asarray(images[start : start + 256]), 3).mean(axis=3, dtype=np.float32)
        small = np.add.reduceat(np.add.reduceat(gray, edges, axis=1), edges, axis=2)
        area = np.diff([*edges, size])
        rows.append((small / np.outer(area, area)).reshape(len(gray), -1))
    return np.concatenate(rows).astype(np.float32)


def _nearest(features: NDArray[np.float32]) -> NDArray[np.int64]:
    """Give for each row the index of its nearest other row (Euclidean)."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(features).kneighbors(return_distance=False)
    nearest: NDArray[np.int64] = found[:, 0]  # without a query a row is not its own neighbour
    return nearest


def _cuts(features: NDArray[np.float32], block: int) -> list[int]:
    """Give where the parts of one sequence start, 0 among them."""
    num = len(features)
    least, most = max(1, block // 2), max(1, block + block // 2)
    if num <= most:
        return [0]
    jump = np.linalg.norm(np.diff(features, axis=0), axis=1)  # jump[i] lies before slice i + 1
    places = np.arange(num)
    nearest = _nearest(features)
    # crossing[p]: how many slices have their nearest neighbour across a split before slice p.
    ends = np.sort(np.stack([places, nearest]), axis=0)
    step = np.zeros(num + 1, dtype=np.int64)
    np.add.at(step, ends[0] + 1, 1)
    np.add.at(step, ends[1] + 1, -1)
    crossing = np.cumsum(step)[:num]
    cuts, open_ = [0], [(0, num)]
    while open_:
        start, stop = open_.pop()
        if stop - start <= most:
            continue
        inside = np.arange(start + least, stop - least + 1)
        cut = int(inside[np.lexsort((-jump[inside - 1], crossing[inside]))[0]])
        cuts.append(cut)
        open_ += [(start, cut), (cut, stop)]
    return sorted(cuts)
