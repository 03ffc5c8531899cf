"""What a training and its validation read: `Batches`, tensors in memory as such, the time spent waiting for them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from tutelage.ranks import Ranks

from .soft_targets import tensors_id
from .soft_term import LabelledBatch

Item = TypeVar("Item")


class RankedBatch(LabelledBatch, Protocol):
    """One process's rows of a batch; `num_global` counts those of all processes."""

    @property
    def num_global(self) -> int: ...


class Batches(Protocol):
    """A source of batches: the same for the same epoch number, every time.

    `identity` hashes all that they depend on (images, split, augmentation, order): checkpoints of other data are not
    taken up. It is read only where there is a checkpoint. Process `rank` of `num_ranks` gets every `num_ranks`-th row
    of every batch, from row `rank` on; the two are given only where there are several processes.
    """

    @property
    def identity(self) -> str: ...
    def __len__(self) -> int: ...
    def epoch(self, k: int, /, rank: int = 0, num_ranks: int = 1) -> Iterable[RankedBatch]: ...


@dataclass(frozen=True)
class InMemory:
    """Images `(n, c, r, r)` and their labels as batches, in their order."""

    images: Tensor
    labels: Tensor
    batch_size: int = 256

    @property
    def identity(self) -> str:
        return tensors_id(self.images, self.labels)

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def epoch(self, k: int, /, rank: int = 0, num_ranks: int = 1) -> Iterator[RankedBatch]:
        """Give the batches; those of every epoch are the same."""
        for indices in torch.split(torch.arange(len(self.images)), self.batch_size):
            mine = indices[rank::num_ranks]
            yield _Rows(self.images[mine], self.labels[mine], mine, torch.zeros_like(mine), len(indices))


@dataclass(frozen=True)
class _Rows:
    images: Tensor
    labels: Tensor
    indices: Any
    aug_seeds: Any
    num_global: int


def epoch_of(batches: Batches, k: int, ranks: Ranks) -> Iterable[RankedBatch]:
    """Give this process's rows of an epoch."""
    return batches.epoch(k) if ranks.num == 1 else batches.epoch(k, ranks.rank, ranks.num)


def num_global(batch: RankedBatch, ranks: Ranks) -> int:
    """Count the images of a batch over all processes."""
    return len(batch.images) if ranks.num == 1 else batch.num_global


@dataclass
class Waiting:
    """Counts the seconds that a loop waits for its next batch."""

    seconds: float = 0.0

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """Give the items."""
        source = iter(items)
        while True:
            began = time.perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - began
            yield item
