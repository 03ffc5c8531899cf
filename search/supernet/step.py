"""One step of supernet training: which subnets run, what each learns from, and the state that the next step needs.

Enters: a `TrainState`, a batch. Leaves: the loss, the state moved on by one optimiser step.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.records import Arch, InputError
from tutelage.search.spaces.space import Space

from .forward import fast_bf16, forward_subnet
from .reorganise import reorganise
from .scoring import resize

# images (b, channels, side, side) normalised; labels (b,) or (b, labels); teacher probabilities (b, classes) or None.
Batch = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class Phase:
    """A phase of progressive shrinking: its share of the steps, subnets a step, and how many of the largest values of
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


class StepOptions(Protocol):
    """What a step reads of the schedule (`shrink.SupernetSchedule`)."""

    @property
    def method(self) -> str: ...
    @property
    def num_random(self) -> int: ...
    @property
    def kd_ratio(self) -> float: ...
    @property
    def teacher_ratio(self) -> float: ...
    @property
    def ema_decay(self) -> float | None: ...
    @property
    def clip_norm(self) -> float: ...
    @property
    def label_smoothing(self) -> float: ...
    @property
    def bf16(self) -> bool | None: ...


@dataclass
class TrainState:
    """Everything that the next step depends on."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor] | None  # exponential moving average of the parameters
    teacher: nn.Module | None = None  # progressive: the full network as its phase left it
    phase: int = 0
    step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)


def start(net: nn.Module, lr: float, weight_decay: float, ema_decay: float | None) -> TrainState:
    """Make the state before the first step: AdamW, without decay of norms, biases and kernel matrices."""
    named = list(net.named_parameters())
    decayed = [p for name, p in named if p.ndim > 1 and not name.endswith("_matrix")]
    kept = [p for name, p in named if p.ndim <= 1 or name.endswith("_matrix")]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    average = None if ema_decay is None else {name: p.detach().clone() for name, p in named}
    net.train()
    return TrainState(net, torch.optim.AdamW(groups, lr=lr, fused=True), average)


def finish(state: TrainState) -> None:
    """Leave the averaged weights in the network, where there are any."""
    if state.average is not None:
        state.net.load_state_dict({**state.net.state_dict(), **state.average})


def train_step(
    state: TrainState,
    space: Space,
    options: StepOptions,
    total_steps: int,
    rng: np.random.Generator,
    batch: Batch,
    *,
    multi_label: bool = False,
) -> Tensor:
    """Run the step's subnets forward and backward, clip, step the optimiser and the average; give the mean loss ()."""
    images, labels, teacher_probs = batch
    if options.method == "progressive":
        _enter_phase(state, total_steps)
    archs = choose_archs(space, options, state.phase, images.shape[-1], rng)
    half = fast_bf16(images.device) if options.bf16 is None else options.bf16
    state.optimizer.zero_grad(set_to_none=True)
    soft = teacher_probs
    if state.teacher is not None and soft is None:
        with torch.no_grad():
            largest = space.largest(archs[0].r)
            soft = _probabilities(forward_subnet(state.teacher, largest, resize(images, largest.r)), multi_label)
    losses = []
    for index, arch in enumerate(archs):
        leads = options.method == "sandwich" and index == 0
        logits = forward_subnet(state.net, arch, resize(images, arch.r), track=index == 0, bf16=half).float()
        ratio = options.teacher_ratio if leads else options.kd_ratio
        smoothing = options.label_smoothing if leads or soft is None else 0.0
        loss = subnet_loss(logits, labels, soft, ratio, smoothing, multi_label=multi_label)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        if leads:  # the others learn from the largest, and from the teacher in equal parts where there is one
            lead = _probabilities(logits.detach(), multi_label)
            soft = lead if teacher_probs is None else (lead + teacher_probs) / 2
    torch.nn.utils.clip_grad_norm_(state.net.parameters(), options.clip_norm)
    state.optimizer.step()
    _average(state, options.ema_decay)
    state.step += 1
    return torch.stack(losses).mean()


def choose_archs(space: Space, options: StepOptions, phase: int, side: int, rng: np.random.Generator) -> list[Arch]:
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
