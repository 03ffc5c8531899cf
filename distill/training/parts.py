"""The rows of a batch that one process trains on, in parts where memory is short, and the check of their logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tutelage.records import InputError

from .soft_term import LabelledBatch


@dataclass(frozen=True)
class BatchPart:
    """Some rows of a batch: images and labels on the device that trains, indices and seeds as they came."""

    images: Tensor
    labels: Tensor
    indices: Any
    aug_seeds: Any


def placed(batch: LabelledBatch, place: torch.device) -> BatchPart:
    """Give the rows of this process on the device `place`."""
    images, labels = (part.to(place, non_blocking=True) for part in (batch.images, batch.labels))
    return BatchPart(images, labels, batch.indices, batch.aug_seeds)


def parts_of(batch: BatchPart, number: int, least: int) -> Iterator[BatchPart]:
    """Give the batch in `number` parts of nearly one size, fewer where one would have less than two images.

    `least` counts the images of the process that has fewest: all have as many parts, for they wait for each other.
    """
    rows = len(batch.images)
    number = max(1, min(number, least // 2))
    for start, end in pairwise(rows * place // number for place in range(number + 1)):
        part = slice(start, end)
        yield BatchPart(batch.images[part], batch.labels[part], batch.indices[part], batch.aug_seeds[part])


class FiniteLogits:
    """Refuses logits that are not finite: at once on a CPU, after some steps on a GPU, which a look would stop."""

    EVERY = 50

    def __init__(self, place: torch.device) -> None:
        self._place = place
        self._bad: list[Tensor] = []
        self._steps: list[tuple[int, int, float]] = []

    def check(self, logits: Tensor, batch: BatchPart, epoch: int, step: int, lr: float) -> None:
        """Note one batch, or raise `InputError` for it or for one before it."""
        if self._place.type == "cpu":
            if not bool(torch.isfinite(logits).all()):
                raise InputError(_not_finite(logits, batch, epoch, step, lr))
            return
        self._bad.append(~torch.isfinite(logits.detach()).all())
        self._steps.append((epoch, step, lr))
        if len(self._bad) >= self.EVERY:
            self.read()

    def read(self) -> None:
        """Raise `InputError` that names the first batch, of those noted, whose logits were not finite."""
        if not self._bad:
            return
        bad = torch.stack(self._bad).cpu()
        if bool(bad.any()):
            epoch, step, lr = self._steps[int(torch.nonzero(bad)[0])]
            raise InputError(
                f"logits are not finite at epoch {epoch}, batch {step}; lr was {lr:.2g}: lower it, set clip_norm, or "
                "look at the images of that batch"
            )
        self._bad, self._steps = [], []


def _not_finite(logits: Tensor, batch: BatchPart, epoch: int, step: int, lr: float) -> str:
    # Batch norm spreads one bad image over all rows: an image that is itself not finite is named first.
    bad = ~torch.isfinite(batch.images.flatten(1)).all(1)
    bad = bad if bool(bad.any()) else ~torch.isfinite(logits).all(1)
    row = int(torch.nonzero(bad)[0])
    return (
        f"logits are not finite at epoch {epoch}, batch {step} (first: row {row}, image {int(batch.indices[row])}); "
        f"lr was {lr:.2g}: lower it, set clip_norm, or look at that image"
    )
