"""Losses of logits: against hard labels and against a teacher's softened outputs, pure functions with their sources.

Logits are `(batch, classes)`, labels `(batch,)` or `(batch, labels)`. Every soft loss is the soft term only: `train`
weights it against the hard term.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.records import InputError

from .entry import Loss


def hard_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    multi_label: bool = False,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Give cross-entropy for labels `(batch,)`, or the mean binary one for labels `(batch, labels)`.

    Labels of class probabilities `(batch, classes)` (mixup) are taken too. Multi-label: `class_weights` is the
    positive weight neg / pos of each, and a NaN label is unknown and left out. `focal_gamma` > 0 weights an example by
    (1 - p_t)^gamma (Lin et al., ICCV 2017).
    """
    if multi_label:
        return _binary_loss(logits, labels, label_smoothing, class_weights, focal_gamma)
    if focal_gamma == 0:
        return F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing)
    classes = logits.shape[1]
    target = labels if labels.is_floating_point() else F.one_hot(labels, classes).to(logits.dtype)
    target = target * (1 - label_smoothing) + label_smoothing / classes
    log_p = F.log_softmax(logits, dim=1)
    per_class = -target * (1 - log_p.exp()) ** focal_gamma * log_p
    if class_weights is None:
        return per_class.sum(1).mean()
    return (per_class * class_weights).sum() / (target * class_weights).sum()


def _binary_loss(
    logits: Tensor, labels: Tensor, smoothing: float, pos_weight: Tensor | None, focal_gamma: float
) -> Tensor:
    known = ~torch.isnan(labels)
    target = torch.where(known, labels, 0.0).to(logits.dtype)
    smooth = target * (1 - smoothing) + smoothing / 2
    loss = F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=pos_weight, reduction="none")
    if focal_gamma > 0:
        p = logits.sigmoid()
        loss = loss * (target * (1 - p) + (1 - target) * p) ** focal_gamma
    return (loss * known).sum() / known.sum().clamp(min=1)


def soft_kd(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Give T^2 KL(softmax(z_t / T) || softmax(z_s / T)), a mean over the batch (Hinton et al., 2015)."""
    log_s = F.log_softmax(student / temperature, dim=1)
    log_t = F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2


def multi_label_kd(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Give T^2 KL of Bernoulli(sigmoid(z_t / T)) || Bernoulli(sigmoid(z_s / T)), a mean over batch and labels."""
    s, t = student / temperature, teacher / temperature
    p = t.sigmoid()
    # KL = p (log p - log q) + (1 - p) (log(1 - p) - log(1 - q)), each logarithm as a logsigmoid: finite for any logit.
    kl = p * (F.logsigmoid(t) - F.logsigmoid(s)) + (1 - p) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return kl.mean() * temperature**2


KD = Loss(
    "kd",
    "Hinton et al., 2015",
    lambda s, t, y, T, n: soft_kd(s, t, T),
    multi_label=lambda s, t, y, T, n: multi_label_kd(s, t, T),
    weight_source="Hinton et al.: T^2 balances the two terms",
    temperature=4.0,
)


def soft_mse(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Give T^2 MSE(softmax(z_s / T), softmax(z_t / T)), a mean over batch and classes (replication of 2305.06244)."""
    return F.mse_loss((student / temperature).softmax(1), (teacher / temperature).softmax(1)) * temperature**2


def multi_label_soft_mse(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Give T^2 MSE(sigmoid(z_s / T), sigmoid(z_t / T)), a mean over batch and labels."""
    return F.mse_loss((student / temperature).sigmoid(), (teacher / temperature).sigmoid()) * temperature**2


SOFT_MSE = Loss(
    "soft_mse",
    "replication of arXiv 2305.06244",
    lambda s, t, y, T, n: soft_mse(s, t, T),
    multi_label=lambda s, t, y, T, n: multi_label_soft_mse(s, t, T),
    weight_source="the replication",
    temperature=2.0,
)


def dkd(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 4.0, alpha: float = 1.0, beta: float = 8.0
) -> Tensor:
    """Give alpha TCKD + beta NCKD: target-class and non-target knowledge apart (Zhao et al., CVPR 2022, eq. 7).

    KL(t || s) = TCKD + (1 - p_t^target) NCKD; at two classes the non-target distribution is one point and NCKD is 0.
    """
    target = F.one_hot(labels, student.shape[1]).bool()
    log_s, log_t = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)
    binary_s, binary_t = _target_or_not(log_s, target), _target_or_not(log_t, target)
    tckd = F.kl_div(binary_s, binary_t, reduction="batchmean", log_target=True)
    others = (len(student), student.shape[1] - 1)
    rest_s = F.log_softmax((student / temperature)[~target].view(others), 1)
    rest_t = F.log_softmax((teacher / temperature)[~target].view(others), 1)
    nckd = F.kl_div(rest_s, rest_t, reduction="batchmean", log_target=True)
    return (alpha * tckd + beta * nckd) * temperature**2


def _target_or_not(log_p: Tensor, target: Tensor) -> Tensor:
    """Give log probabilities `(batch, 2)` of the target class and of all others together."""
    rest = torch.logsumexp(log_p.masked_fill(target, -torch.inf), dim=1)
    return torch.stack((log_p[target], rest), dim=1)


DKD = Loss(
    "dkd",
    "Zhao et al., CVPR 2022",
    lambda s, t, y, T, n: dkd(s, t, y, T, alpha=n["alpha"], beta=n["beta"]),
    weight_source="Zhao et al.: alpha and beta are the weights",
    temperature=4.0,
    numbers={"alpha": 1.0, "beta": 8.0},
    needs_labels=True,
    min_classes=3,
    reason="its non-target term is a distribution over one class: its gradient is 0",
)


def dist(student: Tensor, teacher: Tensor, temperature: float = 4.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """Give T^2 (beta inter + gamma intra): 1 - Pearson over classes and over the batch (Huang et al., NeurIPS 2022)."""
    s, t = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    inter = 1 - _pearson(s, t).mean()
    intra = 1 - _pearson(s.T, t.T).mean()
    return (beta * inter + gamma * intra) * temperature**2


def _pearson(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """Correlate the rows of two matrices."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return F.cosine_similarity(a, b, dim=1, eps=eps)


DIST = Loss(
    "dist",
    "Huang et al., NeurIPS 2022",
    lambda s, t, y, T, n: dist(s, t, T, beta=n["beta"], gamma=n["gamma"]),
    weight_source="Huang et al.: beta and gamma are the weights; their code's class has 1 and 1 by default",
    temperature=1.0,
    numbers={"beta": 2.0, "gamma": 2.0},
    min_classes=3,
    reason="the correlation of two probabilities that sum to 1 is always +1 or -1: its inter term has no gradient",
)


def logit_std(student: Tensor, teacher: Tensor, temperature: float = 2.0, eps: float = 1e-7) -> Tensor:
    """Give T^2 KL of logits standardised over classes, so that only their shape counts (Sun et al., CVPR 2024)."""
    return soft_kd(_standardise(student, eps), _standardise(teacher, eps), temperature)


def _standardise(logits: Tensor, eps: float) -> Tensor:
    # The unbiased standard deviation, as in the authors' code and in torchdistill.
    return (logits - logits.mean(1, keepdim=True)) / (eps + logits.std(1, keepdim=True))


LOGITSTD = Loss(
    "logitstd",
    "Sun et al., CVPR 2024",
    lambda s, t, y, T, n: logit_std(s, t, T),
    weight=9.0,
    weight_source="Sun et al.: their code's kd-weight",
    temperature=2.0,
    min_classes=3,
    reason="two standardised logits are always +-.707: the loss does not depend on the student",
)


def balanced_weights(labels: Tensor, num_classes: int, multi_label: bool = False) -> tuple[float, ...]:
    """Weight classes by n / (classes x count), or give each label's neg / pos; a class with no image, or a label
    that is always or never there, is an error."""
    if multi_label:
        positive, negative = (labels == 1).sum(0), (labels == 0).sum(0)
        for kind, counts in (("positive", positive), ("negative", negative)):
            if int(counts.min()) == 0:
                raise InputError(f"label {int(counts.argmin())} has no {kind} training image: it cannot be weighted")
        return tuple((negative / positive).tolist())
    counts = torch.bincount(labels, minlength=num_classes)
    if int(counts.min()) == 0:
        raise InputError(f"class {int(counts.argmin())} has no training image: it cannot be weighted or learned")
    return tuple((len(labels) / (num_classes * counts)).tolist())
