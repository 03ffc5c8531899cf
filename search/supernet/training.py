"""Train a supernet so that all its subnets do well: the sandwich rule, plain random subnets, or progressive shrinking.

Enters: a supernet, its space, batches of images. Leaves: the supernet holding trained weights, and what training saw.
Sources: BigNAS (Yu et al., ECCV 2020) for the sandwich and in-place distillation; Once-for-All (Cai et al., ICLR 2020)
for progressive shrinking.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from tutelage.records import InputError
from tutelage.search.spaces.space import Space

from .checkpoint import load_checkpoint, save_checkpoint
from .step import Batch, TrainState, finish, start, train_step

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
Method = Literal["sandwich", "random", "progressive"]


@dataclass(frozen=True)
class SupernetSchedule:
    """How a supernet is trained. `lr` is reached after the warm-up and falls to 0 as a cosine.

    `num_random` subnets a step stand between the largest and the smallest (sandwich) or alone (random); the phases of
    progressive shrinking have numbers of their own. Subnets with a soft target weigh it with `kd_ratio` against the
    labels; the largest of a sandwich weighs a teacher's with `teacher_ratio`.
    `bf16=None` takes bfloat16 where the CPU or GPU computes it fast.
    """

    epochs: int
    lr: float = 1e-3
    batch_size: int = 64
    method: Method = "sandwich"
    num_random: int = 2
    kd_ratio: float = 1.0
    teacher_ratio: float = 0.5
    ema_decay: float | None = None
    warmup_epochs: float = 0.5
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    weight_decay: float = 1e-4
    bf16: bool | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.lr <= 0 or self.num_random < 0:
            raise InputError(f"epochs {self.epochs}, lr {self.lr}, num_random {self.num_random}: give positive numbers")
        if self.method not in get_args(Method):
            raise InputError(f"method {self.method!r}: take one of {', '.join(get_args(Method))}")
        if self.method == "random" and self.num_random < 1:
            raise InputError("num_random 0 under method random leaves no subnet to train: give at least 1")


@dataclass(frozen=True)
class TrainLog:
    """One entry an epoch: `epoch`, `loss` (mean over steps and subnets), `lr`, `seconds`."""

    epochs: list[dict[str, float]] = field(default_factory=list)


def train_supernet(
    net: nn.Module,
    space: Space,
    batches: Callable[[int], Iterable[Batch]],
    steps_per_epoch: int,
    schedule: SupernetSchedule,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    data_id: str = "",
    multi_label: bool = False,
    progress: Progress | None = None,
) -> TrainLog:
    """Train all subnets of `net` together; `batches(epoch)` gives the same batches for the same epoch.

    `data_id` names the images, their split and their augmentation: a checkpoint of other data is refused.

    Images larger than a subnet's side are resized, so the resolution gene is trained too. With `checkpoint` each epoch
    is saved (safetensors + JSON) and a later call with the same arguments goes on from there to the same bits. Running
    statistics of batch norm follow the largest subnet; recalibrate before another is used.
    """
    state = start(net, schedule.lr, schedule.weight_decay, schedule.ema_decay)
    signature = {**asdict(schedule), "space": space.name, "steps_per_epoch": steps_per_epoch, "seed": seed}
    signature |= {"resolutions": list(space.resolutions), "multi_label": multi_label, "data": data_id}
    if checkpoint is not None:
        load_checkpoint(checkpoint, state, signature)
    total = schedule.epochs * steps_per_epoch
    for epoch in range(len(state.log), schedule.epochs):
        started = time.perf_counter()
        rng = np.random.default_rng([seed, epoch])
        losses = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1_000_003 + epoch)  # dropout draws from the global generator
            for batch in batches(epoch):
                _set_lr(state, schedule.lr * pace(state.step, total, schedule.warmup_epochs * steps_per_epoch))
                losses.append(train_step(state, space, schedule, total, rng, batch, multi_label=multi_label))
                if progress is not None:
                    progress("train supernet", min(state.step, total), total)
        loss = float(torch.stack(losses).mean()) if losses else math.nan
        if not math.isfinite(loss):
            raise InputError(f"supernet training has loss {loss} in epoch {epoch}: lower lr = {schedule.lr:g}")
        state.log.append({"epoch": epoch, "loss": loss, "seconds": time.perf_counter() - started})
        log.info("supernet epoch %d/%d: loss %.4f", epoch + 1, schedule.epochs, loss)
        if checkpoint is not None:
            save_checkpoint(checkpoint, state, signature)
    finish(state)
    return TrainLog(state.log)


def pace(step: int, total: int, warmup: float) -> float:
    """Give the share of the full learning rate at a step: linear warm-up, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup))))


def _set_lr(state: TrainState, lr: float) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = lr
