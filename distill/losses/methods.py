"""The registry of distillation methods.

`find_loss` looks a method up for a number of classes; `check_distillation` refuses options that would have no effect.
Every module of this package declares its own methods, each beside its loss; installed packages add theirs.

Open, of the medical papers beside the four recipes: SSD-KD's self-supervised relations, CRCKD with its memory bank,
ACID's choice of batches by learnability, and SimKD's reuse of the teacher's classifier. EFCM's first stage (features
alone, no labels) is `method: fitnet` with `alpha: 0`; KD-OCT is `method: kd` between two timm names.
"""

from __future__ import annotations

import math
from typing import Any

from tutelage.distill.training.schedule import KDConfig
from tutelage.plugins import Registry, modules_of
from tutelage.records import InputError

from .entry import LAYER_OPTIONS, Loss

# Of the logits that a feature method may compare too (`logits_weight`).
LOGITS_TEMPERATURE = 4.0

LOSSES = Registry("losses", "distillation method", Loss, modules_of("tutelage.distill.losses", Loss))

_RENAMED = {"crckd": ("category_relation", "CRCKD's memory bank is not part of it")}


def find_loss(method: str, num_classes: int, multi_label: bool = False) -> Loss:
    """Look a method up; one without a gradient at this class count, or without a multi-label form, is refused."""
    if method in _RENAMED:
        name, reason = _RENAMED[method]
        raise InputError(f"method {method!r} is called {name!r} here, since {reason}: write that name")
    loss = LOSSES.find(method)
    if num_classes < loss.min_classes and not multi_label:
        raise InputError(
            f"method {method!r} needs at least {loss.min_classes} classes, got {num_classes}: {loss.reason}; use 'kd'"
        )
    if multi_label and loss.multi_label is None and (not loss.features or loss.needs_labels):
        raise InputError(
            f"method {method!r} is defined for one label an image: use 'kd' or 'soft_mse' for multi-label data"
        )
    return loss


def check_distillation(
    kd: KDConfig, num_classes: int, multi_label: bool, *, num_teachers: int = 1, mixing: bool = False
) -> Loss:
    """Give the method's entry, or refuse a setting that it does not read or cannot work with.

    `num_teachers` distil one student at once (0: only its own average, `mean_teacher`); `mixing` is mixup or cutmix.
    """
    loss = find_loss(kd.method, num_classes, multi_label)
    _check_options(kd, loss, num_teachers)
    compares_logits = not loss.features or kd.options.get("logits_weight", 0) > 0
    if kd.temperature is not None and loss.temperature is None and not compares_logits:
        raise InputError(
            f"temperature = {kd.temperature:g} has no effect under method {kd.method!r}, which compares features: "
            "leave it out, or compare logits too (options: logits_weight)"
        )
    if kd.combine != "mean" and not compares_logits:
        raise InputError(
            f"combine = {kd.combine!r} has no effect under method {kd.method!r}, which takes the mean over teachers: "
            "leave it out"
        )
    if kd.combine != "mean" and num_teachers < 2:
        raise InputError(f"combine = {kd.combine!r} has no effect where no two teachers distil together: leave it out")
    if mixing and loss.needs_labels:
        raise InputError(f"method {kd.method!r} needs one true class an image: disable mixup and cutmix")
    if kd.alpha == 1 and num_teachers > 0:
        raise InputError("alpha = 1 leaves the teachers without effect: lower it, or name no teachers")
    return loss


def _check_options(kd: KDConfig, loss: Loss, num_teachers: int) -> None:
    # Without a teacher the student's own average gives the logits, whatever the method.
    read = loss.options if num_teachers else tuple(dict.fromkeys((*loss.options, "mean_teacher")))
    for name, value in kd.options.items():
        if name not in read and not any(name in other.options for other in LOSSES.values()):
            raise InputError(f"unknown distillation option {name!r}: method {kd.method!r} reads {_listed(read)}")
        if name not in read:
            raise InputError(
                f"option {name!r} has no effect under method {kd.method!r}, which reads {_listed(read)}: leave it out"
            )
        _check_value(name, value)


def _check_value(name: str, value: Any) -> None:
    if name in LAYER_OPTIONS:
        if not isinstance(value, list | tuple) or not value or not all(isinstance(layer, str) for layer in value):
            raise InputError(f"option {name} = {value!r}: give a list of layer names, e.g. [blocks.3]")
        return
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if name == "mean_teacher":
        if not 0 < number < 1:
            raise InputError(f"option mean_teacher = {value!r}: give the average's decay, above 0 and below 1")
    elif not 0 <= number < math.inf:
        raise InputError(f"option {name} = {value!r}: give a number of at least 0")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "no options"
