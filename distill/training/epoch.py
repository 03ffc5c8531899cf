"""One epoch of a training (`run_epoch`): batches in parts where memory is short, and the check of their logits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutelage.accelerator import reseed
from tutelage.distill.data.loader import resize
from tutelage.distill.losses.logits import hard_loss
from tutelage.ranks import Ranks, synced_statistics
from tutelage.records import InputError

from .batches import Batches, Waiting, epoch_of, num_global
from .mixing import Mix, draw_mix
from .normalisation import InitialStatistics
from .schedule import TrainSchedule, lr_factor
from .soft_term import LabelledBatch, SoftTerm
from .tuning import Frozen

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Setup:
    """What every epoch of a training works with.

    `forward` runs `wrapped`, compiled where the accelerator does; that is `model` itself, or averages its gradients
    over the processes of `group`. `ema` is a moving average (`start_average`) or None.
    `initial` is of the statistics that the first epochs replace, None where they are to be kept.
    """

    model: nn.Module
    wrapped: nn.Module
    forward: Callable[[Tensor], Tensor]
    optimizer: Any
    schedule: TrainSchedule
    soft_term: SoftTerm | None
    ema: Any
    frozen: Frozen | None
    initial: InitialStatistics | None
    class_weights: Tensor | None
    group: Any
    ranks: Ranks
    place: torch.device
    layout: torch.memory_format
    bf16: bool
    multi_label: bool
    resolution: int | None
    seed: int


def run_epoch(
    setup: Setup, batches: Batches, epoch: int, values: Sequence[tuple[float, ...]], progress: Progress | None = None
) -> dict[str, Any]:
    """Train one epoch and give its record, see `TrainResult.history`; `values` are the validation figures so far.

    Raises `InputError` on logits that are not finite, and where every batch is too small.
    """
    schedule, ranks, place, num_batches = setup.schedule, setup.ranks, setup.place, len(batches)
    # Dropout and mixup depend on (seed, epoch, process) alone: a resumed epoch draws what the first try drew.
    reseed(int(np.random.SeedSequence([setup.seed, epoch, ranks.rank]).generate_state(1)[0]), place)
    rng = np.random.default_rng([setup.seed, epoch, ranks.rank, 1])
    setup.wrapped.train()
    if setup.frozen is not None:
        setup.frozen.hold()
    finite, waiting = FiniteLogits(place), Waiting()
    sums, count, lr, began = _zeros(place), 0, 0.0, time.monotonic()
    num_before = setup.initial.num_batches if setup.initial is not None else 0
    for step, batch in enumerate(waiting.over(epoch_of(batches, epoch, ranks))):
        whole = num_global(batch, ranks)
        if whole < 2 * ranks.num:
            continue
        mine = placed(batch, place)
        lr = schedule.lr * lr_factor(schedule, epoch + step / num_batches, values)
        for param_group in setup.optimizer.param_groups:
            param_group["lr"] = lr * param_group.get("lr_scale", 1.0)  # states of earlier versions hold none
        setup.optimizer.zero_grad(set_to_none=True)
        for part in parts_of(mine, schedule.accumulate, whole // ranks.num):
            mix = draw_mix(len(part.images), schedule.mixup, schedule.cutmix, rng)
            images, logits = _forward(setup, part, mix)
            finite.check(logits, part, epoch, step, lr)
            weight = len(part.images) * ranks.num / whole  # of the mean over the rows of all parts and processes
            losses = _backward(setup, part, mix, images, logits, weight)
            # Left on the device until the epoch ends: reading a number waits for all that a GPU has to do.
            sums += len(part.images) * losses.to(sums)
        _update(setup, epoch * num_batches + step + 2)
        count += len(mine.images)
        if progress:
            progress("train", epoch * num_batches + step + 1, schedule.epochs * num_batches)
    finite.read()
    if count == 0:
        raise InputError(f"epoch {epoch} has no batch of at least {2 * ranks.num} images: lower the batch size")
    if setup.initial is not None and num_before < setup.initial.LEAST <= setup.initial.num_batches:
        decays = [setup.ema.get_decay(one + 2) for one in range((epoch + 1) * num_batches)] if setup.ema else []
        setup.initial.remove(setup.model, setup.ema.module if setup.ema else None, decays)
    means = _mean(sums.cpu().double().numpy(), count, setup.group)
    return {
        **dict(zip(("loss", "hard", "soft"), means, strict=True)),
        **{"epoch": epoch, "lr": lr, "seconds": time.monotonic() - began},
        **{"wait_seconds": waiting.seconds, "images": count},
    }


def _forward(setup: Setup, part: BatchPart, mix: Mix) -> tuple[Tensor, Tensor]:
    """Give the images of a part as the network sees them, and its logits `(rows, classes)` in float32."""
    images = part.images if setup.resolution is None else resize(part.images, setup.resolution)
    images = mix.images(images).contiguous(memory_format=setup.layout)
    with torch.autocast(setup.place.type, torch.bfloat16, enabled=setup.bf16), synced_statistics(setup.ranks):
        logits = setup.forward(images)
    return images, logits.float()


def _backward(setup: Setup, part: BatchPart, mix: Mix, images: Tensor, logits: Tensor, weight: float) -> Tensor:
    """Add the gradients of a part, times its weight; give its loss, hard loss and soft loss `(3,)`."""
    soft_term = setup.soft_term
    hard = hard_loss(
        logits,
        mix.labels(part.labels, logits.shape[1], setup.multi_label),
        multi_label=setup.multi_label,
        label_smoothing=setup.schedule.label_smoothing,
        class_weights=setup.class_weights,
        focal_gamma=setup.schedule.focal_gamma,
    )
    soft = soft_term.soft(logits, part, mix, images) if soft_term else hard.new_zeros(())
    loss = soft_term.kd.alpha * hard + (1 - soft_term.kd.alpha) * soft if soft_term else hard
    setup.group.backward(loss if weight == 1 else loss * weight)
    return torch.stack([loss, hard, soft]).detach()


def _update(setup: Setup, number: int) -> None:
    """Step the optimiser, and all that follows the weights; `number` counts the average's updates from 2 on."""
    if setup.ranks.num > 1 and setup.soft_term:
        for parameter in setup.soft_term.projectors.parameters():  # outside of `wrapped`: nobody else averages them
            parameter.grad = setup.group.reduce(parameter.grad, "mean")
    if setup.schedule.clip_norm is not None:
        setup.group.clip_grad_norm_(setup.model.parameters(), setup.schedule.clip_norm)
    setup.optimizer.step()
    setup.ranks.average_statistics(setup.model)
    if setup.soft_term:
        setup.soft_term.follow(setup.model)
    if setup.ema is not None:
        setup.ema.update(setup.model, step=number)


def _zeros(place: torch.device) -> Tensor:
    """Give the sums of an epoch: in double precision where the device has it."""
    return torch.zeros(3, dtype=torch.float32 if place.type == "mps" else torch.float64, device=place)


def _mean(sums: NDArray[np.float64], count: int, group: Any) -> list[float]:
    """Give the mean over the images of all processes: each of them saw its own rows alone."""
    if group.num_processes > 1:
        from accelerate.utils import reduce

        totals = reduce(torch.tensor([*sums, count], dtype=torch.float32, device=group.device), "sum").tolist()
        return [value / totals[-1] for value in totals[:-1]]
    return [float(value) for value in sums / count]


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
