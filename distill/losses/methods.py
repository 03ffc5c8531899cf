"""The distillation methods by name: their losses, the weights and options of their papers, and what each one reads.

`find_loss` looks a method up for a number of classes; `check_distillation` refuses options that would have no effect.

Open, of the medical papers beside the four recipes: SSD-KD's self-supervised relations, CRCKD with its memory bank,
ACID's choice of batches by learnability, and SimKD's reuse of the teacher's classifier. EFCM's first stage (features
alone, no labels) is `method: fitnet` with `alpha: 0`; KD-OCT is `method: kd` between two timm names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tutelage.distill.training.schedule import KDConfig
from tutelage.records import InputError

from .logits import dist, dkd, logit_std, multi_label_kd, multi_label_soft_mse, soft_kd, soft_mse

Numbers = Mapping[str, float]
# (student logits, teacher logits, labels, temperature, the method's own numbers) -> scalar
SoftLoss = Callable[[Tensor, Tensor, Tensor, float, Numbers], Tensor]

# Of the logits that a feature method may compare too (`logits_weight`).
LOGITS_TEMPERATURE = 4.0
_LAYERS = ("student_layers", "teacher_layers")


@dataclass(frozen=True)
class Loss:
    """A soft loss by name: how to call it, its paper's weight and options, and what it needs.

    `weight` multiplies the soft term where cross-entropy has weight 1 (`weight_source` says whose it is).
    `temperature` is the default, `None` where the method reads none. `numbers` are options of its own with defaults.
    """

    name: str
    source: str
    soft: SoftLoss | None = None  # None for feature losses
    multi_label: SoftLoss | None = None
    weight: float = 1.0
    weight_source: str = "ours"
    temperature: float | None = None
    numbers: Numbers = field(default_factory=dict)
    layers: bool = False  # compares maps of layers, which student_layers and teacher_layers may name
    min_classes: int = 2  # with fewer the loss has no gradient, and `reason` says why
    reason: str = ""
    needs_labels: bool = False  # one true class an image: not with mixup
    features: bool = False  # reads the inside of a live teacher: cached soft targets are not enough

    @property
    def options(self) -> tuple[str, ...]:
        """Name the keys of `KDConfig.options` that this method reads when there is a teacher."""
        more = (*(_LAYERS if self.layers else ()), *(("logits_weight", "mean_teacher") if self.features else ()))
        return (*self.numbers, *more)


def _table(*losses: Loss) -> dict[str, Loss]:
    return {loss.name: loss for loss in losses}


# CRD: Tian et al., ICLR 2020, who tuned each method's weight beside a cross-entropy of weight 1 (RepDistiller).
LOSSES: dict[str, Loss] = _table(
    Loss(
        "kd",
        "Hinton et al., 2015",
        lambda s, t, y, T, n: soft_kd(s, t, T),
        multi_label=lambda s, t, y, T, n: multi_label_kd(s, t, T),
        weight_source="Hinton et al.: T^2 balances the two terms",
        temperature=4.0,
    ),
    Loss(
        "soft_mse",
        "replication of arXiv 2305.06244",
        lambda s, t, y, T, n: soft_mse(s, t, T),
        multi_label=lambda s, t, y, T, n: multi_label_soft_mse(s, t, T),
        weight_source="the replication",
        temperature=2.0,
    ),
    Loss(
        "dkd",
        "Zhao et al., CVPR 2022",
        lambda s, t, y, T, n: dkd(s, t, y, T, alpha=n["alpha"], beta=n["beta"]),
        weight_source="Zhao et al.: alpha and beta are the weights",
        temperature=4.0,
        numbers={"alpha": 1.0, "beta": 8.0},
        needs_labels=True,
        min_classes=3,
        reason="its non-target term is a distribution over one class: its gradient is 0",
    ),
    Loss(
        "dist",
        "Huang et al., NeurIPS 2022",
        lambda s, t, y, T, n: dist(s, t, T, beta=n["beta"], gamma=n["gamma"]),
        weight_source="Huang et al.: beta and gamma are the weights; their code's class has 1 and 1 by default",
        temperature=1.0,
        numbers={"beta": 2.0, "gamma": 2.0},
        min_classes=3,
        reason="the correlation of two probabilities that sum to 1 is always +1 or -1: its inter term has no gradient",
    ),
    Loss(
        "logitstd",
        "Sun et al., CVPR 2024",
        lambda s, t, y, T, n: logit_std(s, t, T),
        weight=9.0,
        weight_source="Sun et al.: their code's kd-weight",
        temperature=2.0,
        min_classes=3,
        reason="two standardised logits are always +-.707: the loss does not depend on the student",
    ),
    Loss(
        "rkd",
        "Park et al., CVPR 2019",
        weight_source="Park et al.: distance_weight and angle_weight are the weights",
        numbers={"distance_weight": 25.0, "angle_weight": 50.0},
        features=True,
    ),
    Loss(
        "at",
        "Zagoruyko and Komodakis, ICLR 2017",
        weight=1000.0,
        weight_source="Zagoruyko and Komodakis: beta",
        layers=True,
        features=True,
    ),
    Loss(
        "fitnet",
        "Romero et al., ICLR 2015; hint and labels together, as in CRD, not in two stages",
        weight=100.0,
        weight_source="CRD",
        layers=True,
        features=True,
    ),
    Loss(
        "spkd",
        "Tung and Mori, ICCV 2019",
        weight=3000.0,
        weight_source="Tung and Mori: gamma",
        layers=True,
        features=True,
    ),
    Loss(
        "category_relation",
        "after CRCKD (Xing et al., MICCAI 2021), without its memory bank: anchors and centroids are the batch's",
        numbers={"relation_weight": 1.0},
        features=True,
        needs_labels=True,
    ),
)

_RENAMED = {"crckd": ("category_relation", "CRCKD's memory bank is not part of it")}


def find_loss(method: str, num_classes: int, multi_label: bool = False) -> Loss:
    """Look a method up; one without a gradient at this class count, or without a multi-label form, is refused."""
    if method in _RENAMED:
        name, reason = _RENAMED[method]
        raise InputError(f"method {method!r} is called {name!r} here, since {reason}: write that name")
    if method not in LOSSES:
        raise InputError(f"unknown distillation method {method!r}: give one of {', '.join(LOSSES)}")
    loss = LOSSES[method]
    if num_classes < loss.min_classes and not multi_label:
        raise InputError(
            f"method {method!r} needs at least {loss.min_classes} classes, got {num_classes}: {loss.reason}; use 'kd'"
        )
    if multi_label and loss.multi_label is None and (not loss.features or loss.needs_labels):
        raise InputError(f"method {method!r} is defined for one label an image: use 'kd' or 'soft_mse' for several")
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
        raise InputError(f"method {kd.method!r} needs one true class an image: turn mixup and cutmix off")
    if kd.alpha == 1 and num_teachers > 0:
        raise InputError("alpha = 1 leaves the teachers without effect: lower it, or name no teachers")
    return loss


def _check_options(kd: KDConfig, loss: Loss, num_teachers: int) -> None:
    known = {name for other in LOSSES.values() for name in other.options}
    # Without a teacher the student's own average gives the logits, whatever the method.
    read = loss.options if num_teachers else tuple(dict.fromkeys((*loss.options, "mean_teacher")))
    for name, value in kd.options.items():
        if name not in known:
            raise InputError(f"unknown distillation option {name!r}: method {kd.method!r} reads {_listed(read)}")
        if name not in read:
            raise InputError(
                f"option {name!r} has no effect under method {kd.method!r}, which reads {_listed(read)}: leave it out"
            )
        _check_value(name, value)


def _check_value(name: str, value: Any) -> None:
    if name in _LAYERS:
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
