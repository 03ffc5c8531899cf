"""Train a supernet so that all its subnets do well: the sandwich rule, plain random subnets, or progressive shrinking.

Sources: BigNAS (Yu et al., ECCV 2020) for the sandwich and in-place distillation; Once-for-All (Cai et al., ICLR 2020)
for progressive shrinking.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.accelerator import CPU, Accelerator, cpu_multiplies_bf16, drawing
from tutelage.allocator import keep_freed_memory
from tutelage.ranks import ALONE, Ranks, synced_statistics
from tutelage.records import Arch, InputError
from tutelage.search.spaces.space import Space

from .forward import forward_subnet
from .reorganise import reorganise
from .scoring import resize
from .train_state import TrainState, fingerprint_of, finish, load_checkpoint, save_checkpoint, start

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
Method = Literal["sandwich", "random", "progressive"]
# images (b, channels, side, side) normalised; labels (b,) or (b, labels); teacher probabilities (b, classes) or None.
Batch = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class Phase:
    """A phase of progressive shrinking: its weight in epochs, subnets a step, and how many of the largest values of
    kernel, depth and expand (or width) it may choose from."""

    epochs: int
    num_subnets: int
    kernels: int
    depths: int
    expands: int


# Epochs in the OFA paper: 180 for the full network, 120 for kernels, 25 + 120 for depths, 25 + 120 for expands.
PHASES = (
    Phase(180, 1, 1, 1, 1),
    Phase(120, 1, 3, 1, 1),
    Phase(25, 2, 3, 2, 1),
    Phase(120, 2, 3, 3, 1),
    Phase(25, 4, 3, 3, 2),
    Phase(120, 4, 3, 3, 3),
)


@dataclass(frozen=True)
class SupernetSchedule:
    """How a supernet is trained. `lr` is reached after the warm-up and falls to 0 as a cosine.

    `num_random` subnets a step stand between the largest and the smallest (sandwich) or alone (random); the phases of
    progressive shrinking have numbers of their own. Subnets with a soft target weigh it with `kd_ratio` against the
    labels; the largest of a sandwich weighs a teacher's with `teacher_ratio`.
    `bf16=None` takes bfloat16 where the accelerator multiplies it. `accumulate` is the number of parts that a batch is
    computed in, one after another, before the optimiser's step; batch norm sees a part at a time.
    """

    epochs: int
    lr: float = 1e-3
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
    accumulate: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.lr <= 0 or self.num_random < 0:
            raise InputError(f"epochs {self.epochs}, lr {self.lr}, num_random {self.num_random}: give positive numbers")
        if self.method not in get_args(Method):
            raise InputError(f"method {self.method!r}: take one of {', '.join(get_args(Method))}")
        if self.method == "random" and self.num_random < 1:
            raise InputError("num_random 0 under method random leaves no subnet to train: give at least 1")
        if self.accumulate < 1:
            raise InputError(f"accumulate {self.accumulate}: give the number of parts of a batch, at least 1")


@dataclass(frozen=True)
class TrainLog:
    """One entry an epoch: `epoch`, `loss` (mean over steps and subnets), `lr`, `seconds`."""

    epochs: list[dict[str, float]] = field(default_factory=list)


@keep_freed_memory()
def train_supernet(
    net: nn.Module,
    space: Space,
    batches: Callable[[int], Iterable[Batch]],
    steps_per_epoch: int,
    schedule: SupernetSchedule,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    finished: Mapping[str, Path] | None = None,
    data_id: str = "",
    multi_label: bool = False,
    progress: Progress | None = None,
    accelerator: Accelerator = CPU,
    ranks: Ranks = ALONE,
) -> TrainLog:
    """Train all subnets of `net` together; `batches(epoch)` gives the same batches for the same epoch.

    `data_id` names the images, their split and their augmentation: a checkpoint of other data is refused. `net` and the
    batches are on the accelerator's device. Of several processes (`ranks`) each is given its own rows of every batch
    and the same `net`: they train the same subnets, with the gradients of the whole batch and, unless `ranks` says that
    batch norm is not synchronised, its statistics.
    finished: checkpoints of finished trainings by fingerprint. Where they are given, nothing is trained: the one of
    this training is read, a `LookupError` where it is not among them.

    Images larger than a subnet's resolution are resized, so that gene is trained too. With `checkpoint` each epoch is
    saved (safetensors + JSON) and a later call with the same arguments goes on from there to the same bits. Running
    statistics of batch norm follow the largest subnet; recalibrate before another is used.
    """
    state = start(net, schedule.lr, schedule.weight_decay, schedule.ema_decay)
    signature = _signature(space, steps_per_epoch, schedule, seed, data_id, multi_label, ranks)
    if finished is not None:
        checkpoint = finished[fingerprint_of(signature)]
    if checkpoint is not None:
        load_checkpoint(checkpoint, state, signature)
    total = schedule.epochs * steps_per_epoch
    for epoch in range(len(state.log), schedule.epochs):
        started = time.perf_counter()
        rng = np.random.default_rng([seed, epoch])
        losses = []
        # Dropout draws from the global generator, for each process apart.
        with drawing((seed * 1_000_003 + epoch) ^ ranks.rank << 48, accelerator.device):
            for batch in batches(epoch):
                _set_lr(state, schedule.lr * pace(state.step, total, schedule.warmup_epochs * steps_per_epoch))
                loss = train_step(
                    state, space, schedule, total, rng, batch,
                    multi_label=multi_label, accelerator=accelerator, ranks=ranks,
                )  # fmt: skip
                losses.append(loss)  # left on the device: it is read once an epoch
                if progress is not None:
                    progress("train supernet", min(state.step, total), total)
        mean = float(ranks.mean(torch.stack(losses).mean())) if losses else math.nan
        if not math.isfinite(mean):
            raise InputError(f"supernet training has loss {mean} in epoch {epoch}: lower lr = {schedule.lr:g}")
        state.log.append({"epoch": epoch, "loss": mean, "seconds": time.perf_counter() - started})
        log.info("supernet epoch %d/%d: loss %.4f", epoch + 1, schedule.epochs, mean)
        if checkpoint is not None and ranks.leads:
            save_checkpoint(checkpoint, state, signature)
        ranks.wait()
    finish(state)
    return TrainLog(state.log)


def _signature(
    space: Space,
    steps_per_epoch: int,
    schedule: SupernetSchedule,
    seed: int,
    data_id: str,
    multi_label: bool,
    ranks: Ranks,
) -> dict[str, Any]:
    """Give all that decides a training's result: a checkpoint with another signature is refused."""
    # As before there were parts of batches where there are none: checkpoints of that time are found by it.
    how = {name: value for name, value in asdict(schedule).items() if name != "accumulate" or value > 1}
    how["batch_size"] = 64  # of a field that nothing read
    signature = {**how, "space": space.name, "steps_per_epoch": steps_per_epoch, "seed": seed}
    signature |= {"resolutions": list(space.resolutions), "multi_label": multi_label, "data": data_id}
    return signature | ({"num_norms": ranks.num_norms} if ranks.num_norms > 1 else {})


def pace(step: int, total: int, warmup: float) -> float:
    """Give the fraction of the full learning rate at a step: linear warm-up, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup))))


def _set_lr(state: TrainState, lr: float) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = lr


def train_step(
    state: TrainState,
    space: Space,
    options: SupernetSchedule,
    total_steps: int,
    rng: np.random.Generator,
    batch: Batch,
    *,
    multi_label: bool = False,
    accelerator: Accelerator = CPU,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Run the step's subnets forward and backward, clip, step the optimiser and the average.

    Give the mean loss (); its mean over `ranks` is that of the whole batch.
    """
    images, labels, teacher_probs = batch
    if options.method == "progressive":
        _enter_phase(state, total_steps)
    archs = choose_archs(space, options, state.phase, images.shape[-1], rng)
    state.optimizer.zero_grad(set_to_none=True)
    whole = ranks.total(images)
    # As many parts in all processes, for they wait for each other's, and two images at least for batch norm.
    num_parts = max(1, min(options.accumulate, whole // ranks.num // 2))
    soft = (None,) * num_parts if teacher_probs is None else teacher_probs.tensor_split(num_parts)
    losses = []
    for part in zip(images.tensor_split(num_parts), labels.tensor_split(num_parts), soft, strict=True):
        fraction = len(part[0]) * ranks.num / whole
        with synced_statistics(ranks):
            losses.append(_backward(state, space, options, archs, part, fraction, multi_label, accelerator))
    ranks.average_gradients(state.net.parameters())
    torch.nn.utils.clip_grad_norm_(state.net.parameters(), options.clip_norm)
    state.optimizer.step()
    ranks.average_statistics(state.net)
    _average(state, options.ema_decay)
    state.step += 1
    return torch.stack(losses).sum()


def _backward(
    state: TrainState,
    space: Space,
    options: SupernetSchedule,
    archs: Sequence[Arch],
    batch: Batch,
    fraction: float,
    multi_label: bool,
    accelerator: Accelerator,
) -> Tensor:
    """Add the gradients of all subnets on one part of a batch, times its `fraction`; give the mean loss () times it."""
    images, labels, teacher_probs = batch
    half = wants_bf16(options, accelerator)
    soft = teacher_probs
    if state.teacher is not None and soft is None:
        with torch.no_grad():
            largest = space.largest(archs[0].r)
            soft = _probabilities(
                forward_subnet(state.teacher, largest, resize(images, largest.r), bf16=half).float(), multi_label
            )
    losses = []
    for index, arch in enumerate(archs):
        leads = options.method == "sandwich" and index == 0
        forward = _forward_of(state, space, arch, index == 0, half, accelerator)
        logits = forward(resize(images, arch.r)).float()
        ratio = options.teacher_ratio if leads else options.kd_ratio
        smoothing = options.label_smoothing if leads or soft is None else 0.0
        loss = subnet_loss(logits, labels, soft, ratio, smoothing, multi_label=multi_label)
        loss = loss if fraction == 1 else loss * fraction
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        if leads:  # the others learn from the largest, and from the teacher in equal parts where there is one
            lead = _probabilities(logits.detach(), multi_label)
            soft = lead if teacher_probs is None else (lead + teacher_probs) / 2
    return torch.stack(losses).mean()


def _forward_of(
    state: TrainState, space: Space, arch: Arch, track: bool, half: bool, accelerator: Accelerator
) -> Callable[[Tensor], Tensor]:
    """Give the forward of a subnet, compiled where the accelerator does and the subnet comes back in every step."""

    def forward(images: Tensor) -> Tensor:
        return forward_subnet(state.net, arch, images, track=track, bf16=half)

    if not accelerator.compile or arch not in (space.largest(arch.r), space.smallest(arch.r)):
        return forward
    key = (arch, track, half)
    if key not in state.compiled:
        state.compiled[key] = accelerator.compiled(forward, dynamic=False)
    return state.compiled[key]


def wants_bf16(options: SupernetSchedule, accelerator: Accelerator) -> bool:
    """Decide whether to compute in bfloat16: as the schedule says, or where the accelerator multiplies it.

    On a CPU the 1x1 convolutions gain, and depthwise convolutions stay in float32.
    """
    if options.bf16 is not None:
        return options.bf16
    return cpu_multiplies_bf16() if accelerator.on_cpu else accelerator.bf16


def choose_archs(
    space: Space, options: SupernetSchedule, phase: int, side: int, rng: np.random.Generator
) -> list[Arch]:
    """Choose the subnets of a step at sides up to `side`; the sandwich has the largest first and the smallest last."""
    sides = [r for r in space.resolutions if r <= side]
    if not sides:
        raise InputError(f"images of {side} px are smaller than every side of {space.name}: use space.with_resolutions")
    space = space.with_resolutions(sides)
    if options.method == "sandwich":
        middle = space.decode(space.random(options.num_random, rng)) if options.num_random else []
        return [space.largest(), *middle, space.smallest()]
    if options.method == "random":
        return space.decode(space.random(options.num_random, rng))
    choice = PHASES[phase]
    widest = {"ks": choice.kernels, "d": choice.depths, "e": choice.expands, "w": choice.expands}
    low = [max(0, len(g.values) - widest.get(g.field, len(g.values))) for g in space.genes]
    genes = rng.integers(low, space.num_choices, size=(choice.num_subnets, space.num_genes))
    return space.decode(space.canonical(genes))


def subnet_loss(
    logits: Tensor, labels: Tensor, soft: Tensor | None, ratio: float, smoothing: float, *, multi_label: bool
) -> Tensor:
    """Weigh cross-entropy to soft targets (b, classes) by `ratio` against the one to the labels (all without any)."""
    ratio = 0.0 if soft is None else ratio
    loss = logits.new_zeros(())
    if ratio < 1:
        if multi_label:
            smooth = labels.float() * (1 - smoothing) + smoothing / 2
            hard = F.binary_cross_entropy_with_logits(logits, smooth)
        else:
            hard = F.cross_entropy(logits, labels.long(), label_smoothing=smoothing)
        loss = loss + (1 - ratio) * hard
    if soft is not None and ratio > 0:
        crossed = F.binary_cross_entropy_with_logits if multi_label else F.cross_entropy
        loss = loss + ratio * crossed(logits, soft)
    return loss


def phase_at(step: int, total_steps: int) -> int:
    """Say which phase of progressive shrinking a step falls in, the paper's epochs shortened in proportion."""
    ends = np.cumsum([phase.epochs for phase in PHASES])
    return int(min(np.searchsorted(ends, step / total_steps * ends[-1], side="right"), len(PHASES) - 1))


def _enter_phase(state: TrainState, total_steps: int) -> None:
    """Move on to the phase of this step: keep the full network as teacher, sort channels wherever widths shrink.

    After a sort the average starts again and the optimiser's moments are empty: both belong to channels as they stood.
    """
    phase = phase_at(state.step, total_steps)
    if phase == state.phase:
        return
    if state.phase == 0:
        state.teacher = copy.deepcopy(state.net).train()  # batch statistics: its running ones are still young
        state.teacher.requires_grad_(False)
    opened = PHASES[state.phase].expands
    if PHASES[phase].expands > opened:
        reorganise(state.net, opened)
        if state.average is not None:
            state.average = {name: p.detach().clone() for name, p in state.net.named_parameters()}
        state.optimizer.state.clear()
    state.phase = phase


def _average(state: TrainState, decay: float | None) -> None:
    if state.average is None or decay is None:
        return
    warm = min(decay, (1 + state.step) / (10 + state.step))  # early weights should not linger
    current = [p.detach() for p in state.net.parameters()]
    torch._foreach_lerp_(list(state.average.values()), current, 1 - warm)


def _probabilities(logits: Tensor, multi_label: bool) -> Tensor:
    return torch.sigmoid(logits) if multi_label else logits.softmax(1)
