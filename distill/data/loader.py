"""Batches for training: uint8 images in memory, shuffled by (seed, epoch), augmented and normalised batch by batch.

`Loader` gives float32 batches `(b, c, r, r)`, the same bits for the same (seed, epoch) with any number of threads;
`tensors` a whole split.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tutelage.in_file import give_back, in_file
from tutelage.records import InputError, content_id

from .ahead import Spent, ahead
from .augment import augment
from .augmentations import AUGMENTATIONS, Augmentation, Policy
from .dataset import Dataset

# Mean and standard deviation the pixels (0..1) are normalised by: ImageNet's for RGB, so that pretrained teachers fit.
NORMALISATION: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    1: ((0.5,), (0.25,)),
    3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

# A split is copied to a GPU's memory when it is at most this large; beyond, its batches are sent one by one.
_MAX_COPY_BYTES = 4 * 2**30

# Images of a split that are wanted all at once lie in memory up to this size, and in a file beyond.
_MAX_IN_MEMORY = 2**30

# Floats that a CPU works on at a time: they stay in its cache, and malloc gives the same memory again. A whole batch at
# 224 px is new pages from the system at every operation, which takes several times as long as the arithmetic.
_CHUNK_FLOATS = 2**19


class LoadedBatch(NamedTuple):
    """One batch: images `(b, c, r, r)` normalised float32, labels `(b,)` int64 or `(b, L)` float32.

    `indices` `(b,)` are places in the data set's arrays; (index, augmentation seed) names what the image looks like.
    `num_global` counts the images of the batch over all processes, of which these are one process's rows.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    aug_seeds: Tensor
    num_global: int


class Loader:
    """Batches of one split. `loader.epoch(k)` gives the same bits for the same (seed, k), in any order of epochs.

    `workers` threads prepare the next batches while one is used; 0 prepares each when it is asked for. On a GPU they
    only collect the pixels, in pinned memory: resizing, augmentation and normalisation run there. `spent` counts the
    seconds of both.
    `augment` is a name in `AUGMENTATIONS` or a `Policy`; with `augment_variants=K`, epoch k uses augmentation
    seed `k % K`, so that a teacher's cache holds K outputs an image; with None every epoch has its own, and nothing
    should be cached. Seeds of augmentation do not depend on `seed`:
    students of different seeds share what is cached. `resolution` resizes (antialiased); None keeps the set's size.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        batch_size: int,
        resolution: int | None = None,
        *,
        augment: str | Policy = "none",
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        device: str | torch.device = "cpu",
        augment_variants: int | None = None,
        workers: int = 0,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        if augment_variants is not None and augment_variants < 1:
            raise InputError(f"augment_variants must be at least 1, got {augment_variants}")
        self.dataset = dataset
        self.split = split
        self.batch_size = batch_size
        self.resolution = resolution or dataset.size
        self.augmentation = _augmentation(augment)
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.device = torch.device(device)
        self.augment_variants = augment_variants
        self.workers = workers
        self.spent = Spent()
        self.indices = dataset.indices(split)
        if drop_last and len(self.indices) < batch_size:
            raise InputError(f"split {split!r} holds {len(self.indices)} images, fewer than one batch of {batch_size}")
        self._pixels: Tensor | None = None
        # Not a split that is read in its order, for validation: its memory is the network's.
        if self.device.type != "cpu" and shuffle and dataset.images[0].nbytes * len(self.indices) <= _MAX_COPY_BYTES:
            self._pixels = copied(dataset.images, self.indices, self.device)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.indices), self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    @property
    def num_images(self) -> int:
        return len(self.indices)

    @property
    def identity(self) -> str:
        """Hash all that the batches depend on: images, split, augmentation, order and batch size."""
        look = images_id(self.dataset, self.augmentation, self.resolution)
        order = [self.batch_size, self.shuffle, self.seed, self.drop_last, self.augment_variants]
        return content_id([look, self.split, self.indices.tolist(), order])

    def aug_seed(self, epoch: int) -> int:
        """Tell the augmentation seed of an epoch; 0 where nothing is augmented, so that caches are shared."""
        if self.augmentation.changes_nothing:
            return 0
        return epoch if self.augment_variants is None else epoch % self.augment_variants

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Give the order of an epoch, as positions within the split."""
        if not self.shuffle:
            return np.arange(len(self.indices), dtype=np.int64)
        return np.random.default_rng([self.seed, 3, epoch]).permutation(len(self.indices)).astype(np.int64)

    def epoch(self, k: int, rank: int = 0, num_ranks: int = 1) -> Iterator[LoadedBatch]:
        """Give the batches of epoch `k`; process `rank` of `num_ranks` reads and gets every `num_ranks`-th row."""
        order, aug_seed = self.order(k), self.aug_seed(k)

        def rows(number: int) -> NDArray[np.int64]:
            return order[number * self.batch_size : (number + 1) * self.batch_size]

        if self.device.type == "cpu":
            yield from ahead(
                lambda number: self.batch(rows(number)[rank::num_ranks], aug_seed, len(rows(number))),
                len(self),
                self.workers,
                self.spent,
            )
            return
        read = ahead(lambda number: self._read(rows(number)[rank::num_ranks]), len(self), self.workers, self.spent)
        for number, pixels in enumerate(read):
            yield self._finish(pixels, rows(number)[rank::num_ranks], aug_seed, len(rows(number)))

    def batch(self, positions: NDArray[np.int64], aug_seed: int, num_global: int | None = None) -> LoadedBatch:
        """Make one batch from positions within the split."""
        num_global = len(positions) if num_global is None else num_global
        return self._finish(self._read(positions), positions, aug_seed, num_global)

    def _read(self, positions: NDArray[np.int64]) -> Tensor | None:
        """Collect pixels uint8 `(b, h, w, c)`; None where the device holds them all."""
        if self._pixels is not None:
            return None
        pixels = torch.from_numpy(np.ascontiguousarray(self.dataset.images[self.indices[positions]]))
        return pixels.pin_memory() if self.device.type == "cuda" else pixels

    def _finish(
        self, pixels: Tensor | None, positions: NDArray[np.int64], aug_seed: int, num_global: int
    ) -> LoadedBatch:
        """Send pixels to the device, resize, augment and normalise them there."""
        indices = self.indices[positions]
        seeds = np.full(len(indices), aug_seed, dtype=np.int64)
        if pixels is None:
            assert self._pixels is not None
            pixels = self._pixels[torch.from_numpy(positions).to(self.device)]
        pixels = pixels.to(self.device, non_blocking=True)
        labels = torch.from_numpy(self.dataset.labels[indices]).to(self.device)
        images = self._look(pixels, indices, seeds)
        return LoadedBatch(images, labels, torch.from_numpy(indices), torch.from_numpy(seeds), num_global)

    def _look(self, pixels: Tensor, indices: NDArray[np.int64], seeds: NDArray[np.int64]) -> Tensor:
        """Resize, augment and normalise; on a CPU a few images at a time (each one's result is its own)."""
        policy, change = self.augmentation.policy, self.augmentation.change
        shape = (len(indices), self.dataset.channels, self.resolution, self.resolution)
        step = max(1, _CHUNK_FLOATS // (shape[1] * shape[2] * shape[3]))
        if self.device.type != "cpu" or len(indices) <= step:
            return normalise(augment(to_unit(pixels, self.resolution), indices, seeds, policy, change))
        images = torch.empty(shape)
        for start in range(0, len(indices), step):
            some = slice(start, start + step)
            unit = to_unit(pixels[some], self.resolution)
            images[some] = normalise(augment(unit, indices[some], seeds[some], policy, change))
        return images


class InOrder(Loader):
    """A split in its order, as it is: for validation, a batch in memory at a time."""

    @property
    def identity(self) -> str:
        """Hash every value of images and labels, as `tensors_id` does with all of them in memory; once a data set."""
        known, mine = self.dataset.split_digests, (self.split, self.resolution, self.device.type)
        if mine not in known:
            known[mine] = self._digest()
        return known[mine]

    def _digest(self) -> str:
        digest = hashlib.sha256()
        shape = (self.num_images, self.dataset.channels, self.resolution, self.resolution)
        digest.update(f"{shape}{torch.float32}".encode())
        for batch in self.epoch(0):
            digest.update(batch.images.cpu().contiguous().numpy().data)
        labels = torch.from_numpy(self.dataset.labels[self.indices])
        digest.update(f"{tuple(labels.shape)}{labels.dtype}".encode())
        digest.update(labels.contiguous().numpy().data)
        return digest.hexdigest()[:16]


def copied(images: NDArray[np.uint8], indices: NDArray[np.int64], device: torch.device) -> Tensor:
    """Copy images `(n, h, w, c)` to the memory of a device, some at a time: not all are in this machine's at once."""
    found = torch.empty((len(indices), *images.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(indices), 256):
        some = slice(start, start + 256)
        found[some] = torch.from_numpy(np.ascontiguousarray(images[indices[some]])).to(device)
    return found


def _augmentation(given: str | Policy | Augmentation) -> Augmentation:
    if isinstance(given, str):
        return AUGMENTATIONS.find(given)
    return Augmentation("", "", given) if isinstance(given, Policy) else given


def images_id(dataset: Dataset, augment: str | Policy | Augmentation, resolution: int | None = None) -> str:
    """Hash what decides how an (image index, augmentation seed) looks in a batch: the name of a cache of outputs."""
    chosen = _augmentation(augment)
    # A change that is a plug-in's own is known by the package, its version and its name.
    own = [] if chosen.change is None else [chosen.name, str(AUGMENTATIONS.origin(chosen.name))]
    side = resolution or dataset.size
    # A policy of earlier versions had this field, too: their checkpoints and caches are found by this name.
    policy = {**asdict(chosen.policy), "always": 1.0}
    return content_id([dataset.identity, policy, side, NORMALISATION[dataset.channels], *own])


def tensors(
    dataset: Dataset,
    split: str,
    resolution: int | None = None,
    positions: NDArray[np.int64] | None = None,
    *,
    change: Callable[[Tensor], Tensor] | None = None,
    scratch: Path | None = None,
) -> tuple[Tensor, Tensor, NDArray[np.str_]]:
    """Give a split, or the images at `positions` in it: normalised `(n, c, r, r)`, labels, and each image's group.

    `change` is applied to some images at a time. Images of more than 1 GB lie in a file without a name in the folder
    `scratch`, where one is given: the system writes out and reads again what memory cannot hold.
    """
    indices = dataset.indices(split)
    indices = indices if positions is None else indices[positions]
    side = resolution or dataset.size
    images = _room((len(indices), dataset.channels, side, side), scratch)
    for start in range(0, len(indices), 256):
        chosen = indices[start : start + 256]
        pixels = torch.from_numpy(np.ascontiguousarray(dataset.images[chosen]))
        part = normalise(to_unit(pixels, side))
        images[start : start + 256] = part if change is None else change(part)
        give_back(images.numpy())
    return images, torch.from_numpy(dataset.labels[indices]), dataset.groups[indices]


def _room(shape: tuple[int, ...], scratch: Path | None) -> Tensor:
    """Give room for float32 images: memory, or a file of `scratch` that is gone when they are."""
    num_bytes = 4 * math.prod(shape)
    if scratch is None or num_bytes <= _MAX_IN_MEMORY:
        return torch.empty(shape, dtype=torch.float32)
    try:
        return torch.from_numpy(in_file(shape, scratch))
    except OSError as error:
        raise InputError(f"cannot write {num_bytes / 1e9:.1f} GB of images to {scratch}: "
                         f"{error.strerror or error}") from None  # fmt: skip


def to_unit(pixels: Tensor, resolution: int) -> Tensor:
    """Convert uint8 `(b, h, w, c)` to float `(b, c, r, r)` in 0..1, resized with antialiasing where needed."""
    return resize(pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255), resolution)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Resize `(b, c, h, w)` to squares, bilinear and antialiased; the same tensor where it has that size already."""
    size = (resolution, resolution)
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def normalise(images: Tensor) -> Tensor:
    """Normalise `(b, c, h, w)` in 0..1 by the mean and standard deviation of its number of channels."""
    centre, spread = _normalisation(images.shape[1], images.device)
    return (images - centre).div_(spread)


@lru_cache(maxsize=8)
def _normalisation(channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = NORMALISATION[channels]
    return torch.tensor(mean, device=device)[:, None, None], torch.tensor(std, device=device)[:, None, None]
