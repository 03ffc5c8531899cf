"""Losses of features: relations between images, attention maps, hints; pure functions with their sources.

Embeddings are `(batch, features)`, maps `(batch, channels, h, w)`, of student and teacher. Where an entry's weight is
"CRD", it is that of Tian et al., ICLR 2020, who tuned other papers' methods beside a cross-entropy of weight 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.records import InputError

from .entry import Loss


def rkd(student: Tensor, teacher: Tensor, distance_weight: float = 25.0, angle_weight: float = 50.0) -> Tensor:
    """Match distances between pairs and angles in triplets of embeddings (Park et al., CVPR 2019, eq. 5 and 8)."""
    if len(student) < 3:
        raise InputError(f"rkd compares triplets: a batch needs at least 3 images, got {len(student)}")
    distance = F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))
    angle = F.smooth_l1_loss(_angles(student), _angles(teacher))
    return distance_weight * distance + angle_weight * angle


def _relative_distances(points: Tensor, eps: float = 1e-12) -> Tensor:
    """Give distances `(b, b)` over their mean; the diagonal is 0 and counts in the mean of no pair."""
    square = points.pow(2).sum(1)
    squared = (square[:, None] + square[None] - 2 * points @ points.T).clamp(min=eps)
    off_diagonal = 1 - torch.eye(len(points), device=points.device, dtype=points.dtype)
    distances = squared.sqrt() * off_diagonal
    return distances / distances[distances > 0].mean()


def _angles(points: Tensor) -> Tensor:
    """Give cosines `(b, b, b)` of the angles between the directions from one point to two others."""
    directions = F.normalize(points[None] - points[:, None], dim=2)
    return directions @ directions.transpose(1, 2)


RKD = Loss(
    "rkd",
    "Park et al., CVPR 2019",
    embeddings=lambda s, t, y, n: rkd(s, t, n["distance_weight"], n["angle_weight"]),
    weight_source="Park et al.: distance_weight and angle_weight are the weights",
    numbers={"distance_weight": 25.0, "angle_weight": 50.0},
)


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Match normalised maps of mean squared activation (Zagoruyko and Komodakis, ICLR 2017), on the coarser grid."""
    grid = _coarser(student, teacher)
    return (_attention(student, grid) - _attention(teacher, grid)).pow(2).mean()


def _attention(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    return F.normalize(_pool(maps.pow(2).mean(1, keepdim=True), grid).flatten(1))


AT = Loss(
    "at",
    "Zagoruyko and Komodakis, ICLR 2017",
    maps=lambda s, t, n: attention_transfer(s, t),
    weight=1000.0,
    weight_source="Zagoruyko and Komodakis: beta",
)


def hint(projected: Tensor, teacher: Tensor) -> Tensor:
    """Match a teacher's map by MSE (FitNets, Romero et al., ICLR 2015); the student's has passed a 1x1 projector."""
    if projected.shape[1] != teacher.shape[1]:
        raise InputError(
            f"a hint needs a projector: student has {projected.shape[1]} channels, teacher {teacher.shape[1]}"
        )
    grid = _coarser(projected, teacher)
    return F.mse_loss(_pool(projected, grid), _pool(teacher, grid))


FITNET = Loss(
    "fitnet",
    "Romero et al., ICLR 2015; hint and labels together, as in CRD, not in two stages",
    maps=lambda s, t, n: hint(s, t),
    pairs="last",
    project=True,
    weight=100.0,
    weight_source="CRD",
)


def similarity_preserving(student: Tensor, teacher: Tensor, norm: float = 2.0) -> Tensor:
    """Match the row-normalised `(b, b)` similarity of a batch, over b^2 (Tung and Mori, ICCV 2019, eq. 4).

    The paper's rows have L2 norm 1; torchdistill's have L1 norm 1 (`norm=1`).
    """
    difference = _similarity(student, norm) - _similarity(teacher, norm)
    return difference.pow(2).sum() / len(student) ** 2


def _similarity(features: Tensor, norm: float) -> Tensor:
    flat = features.flatten(1)
    return F.normalize(flat @ flat.T, p=norm, dim=1)


SPKD = Loss(
    "spkd",
    "Tung and Mori, ICCV 2019",
    maps=lambda s, t, n: similarity_preserving(s, t),
    pairs="last",
    weight=3000.0,
    weight_source="Tung and Mori: gamma",
)


def category_relation(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 0.1, relation_weight: float = 1.0
) -> Tensor:
    """Give class-guided contrast plus relation to class centroids (after CRCKD, Xing et al., MICCAI 2021).

    Contrast: each student embedding is drawn to the teacher's embeddings of its class in the batch and away from the
    others. Relation: KL between teacher's and student's softened similarities to the class centroids of the batch.
    The paper's memory bank of anchors is not used: the batch stands in for it. Both inputs are `(batch, features)`.
    """
    s, t = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
    same = (labels[:, None] == labels[None]).to(s.dtype)
    log_p = F.log_softmax(s @ t.T / temperature, dim=1)
    contrast = -(log_p * same).sum(1) / same.sum(1)
    present = F.one_hot(labels, int(labels.max()) + 1).to(s.dtype)
    present = present[:, present.sum(0) > 0]
    relation_s = F.log_softmax(s @ _centroids(s, present).T / temperature, dim=1)
    relation_t = F.log_softmax(t @ _centroids(t, present).T / temperature, dim=1)
    relation = F.kl_div(relation_s, relation_t, reduction="batchmean", log_target=True)
    return contrast.mean() + relation_weight * relation


def _centroids(points: Tensor, member: Tensor) -> Tensor:
    """Give the unit vectors (classes, features) along the mean of each class's points, which is along their sum."""
    return F.normalize(member.T @ points, dim=1)


CATEGORY_RELATION = Loss(
    "category_relation",
    "after CRCKD (Xing et al., MICCAI 2021), without its memory bank: anchors and centroids are the batch's",
    embeddings=lambda s, t, y, n: category_relation(s, t, y, relation_weight=n["relation_weight"]),
    project=True,
    numbers={"relation_weight": 1.0},
    needs_labels=True,
)


def _coarser(a: Tensor, b: Tensor) -> tuple[int, int]:
    return min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])


def _pool(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    return maps if tuple(maps.shape[2:]) == grid else F.adaptive_avg_pool2d(maps, grid)
