"""Draw images of a split by class, and check and hash those that a quantizer is calibrated on.

Splits are often sorted by class, so their first images are of one class: whoever needs a few images draws them here.
Calibration images come from the training or validation split, never from test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sized

import numpy as np
import numpy.typing as npt

from tutelage.records import InputError

Array = npt.NDArray[np.float32]


def draw_by_class(
    images: Sized | None, labels: npt.ArrayLike, n: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw `n` indices with as nearly equal numbers of each class as the data allows, in ascending order.

    labels: (num,) class numbers, or (num, labels) of 0/1 where an image counts for its rarest label (all zeros is a
    class of its own). All indices are given when there are fewer than `n`. Only the length of `images` is read.
    """
    targets = np.asarray(labels)
    if images is not None and len(images) != len(targets):
        raise InputError(f"{len(images)} images and {len(targets)} labels; give one label an image")
    if n < 1 or len(targets) == 0:
        raise InputError(f"cannot draw {n} images from {len(targets)}; give at least one image")
    classes = _classes(targets)
    queues = [rng.permutation(np.flatnonzero(classes == value)) for value in np.unique(classes)]
    # Round-robin over the classes: a class that runs out leaves its places to the others.
    order = [int(queue[turn]) for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return np.sort(np.asarray(order[:n], dtype=np.int64))


def calibration_hash(calibration: npt.ArrayLike) -> str:
    """Hash calibration images: SHA-256 over shape and float32 values, 64 hex digits."""
    values = np.ascontiguousarray(calibration, dtype=np.float32)
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()


def checked_calibration(calibration: npt.ArrayLike) -> Array:
    """Return calibration images as float32 (n, c, h, w); raise InputError for none, another rank, NaN or infinity."""
    values = np.ascontiguousarray(calibration, dtype=np.float32)
    if values.size == 0:
        raise InputError("no calibration images; give some tens of normalised training images")
    if values.ndim != 4:
        raise InputError(f"calibration images must have shape (n, c, h, w), got {values.shape}")
    bad = ~np.isfinite(values).all(axis=(1, 2, 3))
    if bad.any():
        raise InputError(f"calibration image {int(np.argmax(bad))} holds NaN or infinite values; leave it out")
    return values


def _classes(targets: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """Reduce multi-label rows to one class each: the rarest label an image has, or -1 for none."""
    if targets.ndim == 1:
        return targets.astype(np.int64)
    positive = targets.astype(np.float64) > 0.5
    by_frequency = np.argsort(positive.sum(axis=0), kind="stable")
    ordered = positive[:, by_frequency]
    rarest = by_frequency[ordered.argmax(axis=1)]
    return np.where(ordered.any(axis=1), rarest, -1).astype(np.int64)
