"""Settings of a training: the schedule, the distillation, and the learning rate that follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from tutelage.accelerator import Accelerator, cpu_multiplies_bf16
from tutelage.records import InputError

from .soft_targets import Combine


@dataclass(frozen=True)
class TrainSchedule:
    """How to train. `lr` is the peak; `batch_size` is the loader's, kept here because `lr` belongs to it."""

    epochs: int = 30
    lr: float = 1e-3
    batch_size: int = 128
    accumulate: int = 1  # parts that a batch is computed in, one after another: less memory, batch norm sees a part
    weight_decay: float = 0.01  # not on biases and norms
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: float = 0.9  # sgd
    decay: Literal["cosine", "step", "plateau", "constant"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)  # step: lr x decay_factor at these fractions of epochs (MedMNIST v2)
    decay_factor: float = 0.1  # step, plateau
    plateau_patience: int = 4  # plateau: epochs without a better validation figure before lr x decay_factor
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.0
    mixup: float = 0.0  # Beta(a, a); 0 is off
    cutmix: float = 0.0
    focal_gamma: float = 0.0
    class_weights: tuple[float, ...] | None = None  # one a class; multi-label: neg / pos of each
    ema_decay: float | None = None
    patience: int | None = None  # epochs without a better validation figure before the training stops
    clip_norm: float | None = None
    bf16: bool | None = False  # None: where it is faster, see wants_bf16
    channels_last: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.lr > 0:
            raise InputError(f"a schedule needs epochs >= 1 and lr > 0, got {self.epochs} and {self.lr}")
        if self.warmup_epochs > self.epochs:
            raise InputError(
                f"warmup_epochs: {self.warmup_epochs:g} of {self.epochs} epochs never reach lr: give at most epochs"
            )
        if self.accumulate < 1 or self.batch_size // self.accumulate < 2:
            raise InputError(
                f"accumulate: {self.accumulate} leaves parts of {self.batch_size // max(self.accumulate, 1)} images of "
                f"batches of {self.batch_size}, and batch norm needs 2: give fewer parts"
            )
        if self.optimizer not in ("adamw", "adam", "sgd"):
            raise InputError(f"unknown optimizer {self.optimizer!r}: give adamw, adam or sgd")
        if self.decay not in ("cosine", "step", "plateau", "constant"):
            raise InputError(f"unknown decay {self.decay!r}: give cosine, step, plateau or constant")


@dataclass(frozen=True)
class KDConfig:
    """How to distil: alpha x hard loss + (1 - alpha) x weight x soft loss of `method` at `temperature`.

    A `temperature` or `weight` of None is the method's own, its paper's (`methods.py`). `teacher_weights`, one a
    teacher, say in which ratio several teachers share the soft term; none: all alike.
    """

    alpha: float = 0.5
    temperature: float | None = None
    method: str = "kd"
    combine: Combine = "mean"  # several teachers
    weight: float | None = None  # of the soft term, on top of 1 - alpha: feature losses differ by orders of magnitude
    options: dict[str, Any] = field(default_factory=dict)  # of the method, see `Loss.options` in methods.py
    teacher_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"alpha must lie in 0..1, got {self.alpha}")
        for name, value in (("temperature", self.temperature), ("weight", self.weight)):
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} must be above 0, got {value}")
        if self.teacher_weights and not (min(self.teacher_weights) >= 0 < sum(self.teacher_weights) < math.inf):
            raise InputError(f"teacher_weights must be 0 or more and not all 0, got {self.teacher_weights}")


def lr_factor(schedule: TrainSchedule, epoch: float, values: Sequence[tuple[float, ...]] = ()) -> float:
    """Give lr / peak lr at a fractional epoch: a linear warm-up, which counts among the epochs, then the decay.

    cosine: half a wave from 1 at the end of the warm-up to 0 at the end of training. step: `decay_factor` at every
    milestone. plateau: `decay_factor` at every plateau of `values`, the validation figures of the epochs so far, larger
    is better. It has no state: a resumed training computes it anew.
    """
    if epoch < schedule.warmup_epochs:
        # A floor of 1 %: the very first step would otherwise learn nothing.
        return max(0.01, epoch / schedule.warmup_epochs)
    if schedule.decay == "cosine":
        decay_epochs = max(schedule.epochs - schedule.warmup_epochs, 1e-9)
        progress = min(1.0, (epoch - schedule.warmup_epochs) / decay_epochs)
        return 0.5 * (1 + math.cos(math.pi * progress))
    if schedule.decay == "step":
        return schedule.decay_factor ** sum(epoch >= fraction * schedule.epochs for fraction in schedule.milestones)
    if schedule.decay == "plateau":
        return schedule.decay_factor ** _num_plateaus(values, schedule.plateau_patience)
    return 1.0


def _num_plateaus(values: Sequence[tuple[float, ...]], patience: int) -> int:
    """Count how often more than `patience` epochs in a row were no better than the best before (ReduceLROnPlateau)."""
    best: tuple[float, ...] = ()  # sorts before every other tuple
    waited, plateaus = 0, 0
    for value in values:
        if value > best:
            best, waited = value, 0
        else:
            waited += 1
            if waited > patience:
                plateaus, waited = plateaus + 1, 0
    return plateaus


def build_optimizer(
    modules: Sequence[nn.Module], schedule: TrainSchedule, scales: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """Make the optimiser; biases, norms and other vectors are not decayed (Bag of Tricks, He et al., CVPR 2019).

    `scales` are factors of the learning rate by the names of the first module's parameters; who sets the rate of a
    group multiplies it by the group's `lr_scale`.
    """
    wanted: dict[float, list[nn.Parameter]] = {}
    for place, module in enumerate(modules):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                scale = scales[name] if scales is not None and place == 0 else 1.0
                wanted.setdefault(scale, []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": params, "weight_decay": decay, "lr_scale": scale}
        for scale, parameters in wanted.items()
        for params, decay in (
            ([p for p in parameters if p.ndim > 1], schedule.weight_decay),
            ([p for p in parameters if p.ndim <= 1], 0.0),
        )
        if params or scales is None
    ]
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=schedule.lr, momentum=schedule.momentum, nesterov=schedule.momentum > 0)
    kind = torch.optim.AdamW if schedule.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=schedule.lr, fused=True)  # one pass over all weights: a tenth of a small network's step


def wants_bf16(schedule: TrainSchedule, accelerator: Accelerator, model: nn.Module) -> bool:
    """Decide whether to compute in bf16: as the schedule says, or where it is faster.

    On a CPU with AVX-512 BF16 dense networks train 1.5 times as fast (DenseNet-121, ResNet), but depthwise
    convolutions have no fast bf16 kernel there: MobileNets take twice as long.
    """
    if schedule.bf16 is not None:
        return schedule.bf16
    if not accelerator.on_cpu:
        return accelerator.bf16
    if not cpu_multiplies_bf16():
        return False
    return not any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules())
