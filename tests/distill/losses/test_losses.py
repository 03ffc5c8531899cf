"""Losses by hand, by identity, and against torchdistill where it has the method."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.distill.losses.features import attention_transfer, category_relation, hint, rkd, similarity_preserving
from tutelage.distill.losses.logits import (
    balanced_weights,
    dist,
    dkd,
    hard_loss,
    logit_std,
    multi_label_kd,
    multi_label_soft_mse,
    soft_kd,
    soft_mse,
)
from tutelage.distill.losses.methods import LOSSES, find_loss
from tutelage.records import InputError

G = torch.Generator().manual_seed(0)
S, T = torch.randn(6, 4, generator=G, dtype=torch.float64), torch.randn(6, 4, generator=G, dtype=torch.float64) * 2
Y = torch.tensor([0, 1, 2, 3, 1, 0])
TWO = torch.tensor([0, 1, 1, 0, 1, 0])
MAPS_S, MAPS_T = torch.randn(4, 3, 5, 5, generator=G), torch.randn(4, 6, 5, 5, generator=G)


def test_soft_kd_by_hand() -> None:
    # Teacher (3/4, 1/4), student (1/2, 1/2) at T 1: KL = .75 log 1.5 + .25 log .5.
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])
    assert float(soft_kd(student, teacher, 1.0)) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    # At T 2 the same logits doubled give the same probabilities; T^2 makes it four times as much.
    assert float(soft_kd(student, 2 * teacher, 2.0)) == pytest.approx(4 * float(soft_kd(student, teacher, 1.0)))


def test_the_gradient_of_soft_kd_is_the_difference_of_probabilities() -> None:
    student = S.clone().requires_grad_()
    soft_kd(student, T, 3.0).backward()  # type: ignore[no-untyped-call]
    expected = 3.0 * ((S / 3).softmax(1) - (T / 3).softmax(1)) / len(S)
    assert student.grad is not None
    assert torch.allclose(student.grad, expected)


def test_multi_label_kd_is_two_class_kd_of_each_label() -> None:
    pairs_s, pairs_t = (torch.stack([z, torch.zeros_like(z)], -1).reshape(-1, 2) for z in (S, T))
    assert torch.allclose(multi_label_kd(S, T, 6.0), soft_kd(pairs_s, pairs_t, 6.0))
    far = torch.full((1, 2), 500.0, requires_grad=True)
    loss = multi_label_kd(far, -far.detach(), 1.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(500.0)
    assert far.grad is not None
    assert bool(torch.isfinite(far.grad).all())


def test_soft_mse_by_hand() -> None:
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]]) * 2
    assert float(soft_mse(student, teacher, 2.0)) == pytest.approx(4 * 0.25**2)


def test_multi_label_soft_mse_is_two_class_mse_of_each_label() -> None:
    # Of a pair (p, 1 - p) both entries differ by as much: the mean over two classes is the one over labels.
    pairs_s, pairs_t = (torch.stack([z, torch.zeros_like(z)], -1).reshape(-1, 2) for z in (S, T))
    for temperature in (1.0, 3.0):
        assert torch.allclose(multi_label_soft_mse(S, T, temperature), soft_mse(pairs_s, pairs_t, temperature))


def test_defaults_are_the_papers() -> None:
    for loss, temperature in (
        (soft_kd, 4.0), (multi_label_kd, 4.0), (dist, 4.0), (soft_mse, 2.0), (multi_label_soft_mse, 2.0),
        (logit_std, 2.0),
    ):  # fmt: skip
        assert torch.equal(loss(S, T), loss(S, T, temperature))  # type: ignore[operator]
    assert torch.equal(dkd(S, T, Y), dkd(S, T, Y, 4.0, alpha=1.0, beta=8.0))
    assert torch.equal(dist(S, T), dist(S, T, beta=1.0, gamma=1.0))
    assert torch.equal(rkd(S, T), rkd(S, T, distance_weight=25.0, angle_weight=50.0))
    usual = category_relation(S, T, Y)
    assert torch.equal(usual, category_relation(S, T, Y, temperature=0.1, relation_weight=1.0))


@pytest.mark.parametrize("loss", [soft_kd, soft_mse, multi_label_kd, multi_label_soft_mse, dist, logit_std])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(loss: Any) -> None:
    student = T.clone().requires_grad_()
    value = loss(student, T)
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-9)
    assert student.grad is not None
    assert float(student.grad.abs().max()) == pytest.approx(0, abs=1e-7)


def test_dkd_splits_kd() -> None:
    # KL(t || s) = TCKD + (1 - p_target) NCKD (eq. 5), image by image.
    for i in range(len(S)):
        s, t, y = S[i : i + 1], T[i : i + 1], Y[i : i + 1]
        for temperature in (2.0, 3.0):
            rest = 1 - float((t / temperature).softmax(1)[0, y])
            whole = float(soft_kd(s, t, temperature))
            assert float(dkd(s, t, y, temperature, alpha=1, beta=rest)) == pytest.approx(whole)


def test_hard_losses() -> None:
    assert torch.allclose(hard_loss(S, Y), F.cross_entropy(S, Y))
    onehot = F.one_hot(Y, 4).double()
    assert torch.allclose(hard_loss(S, onehot, label_smoothing=0.1), F.cross_entropy(S, Y, label_smoothing=0.1))
    p = S.softmax(1)[torch.arange(6), Y]
    assert torch.allclose(hard_loss(S, Y, focal_gamma=2.0), (-((1 - p) ** 2) * p.log()).mean())
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    tiny = hard_loss(S, Y, focal_gamma=1e-12, class_weights=weights)
    assert torch.allclose(tiny, F.cross_entropy(S, Y, weight=weights))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5])
def test_the_focal_loss_of_soft_labels_is_its_definition(gamma: float) -> None:
    """-(sum over classes of y (1 - p)^gamma log p), with y smoothed and classes weighted, by loops."""
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    mixed = F.one_hot(Y, 4).double() * 0.7 + F.one_hot(Y.flip(0), 4).double() * 0.3
    for labels, target in ((mixed, mixed), (Y, F.one_hot(Y, 4).double())):
        for smoothing in (0.0, 0.2):
            total = weighted = mass = 0.0
            for logits, row in zip(S.tolist(), target.tolist(), strict=True):
                norm = sum(math.exp(z) for z in logits)
                for z, y, weight in zip(logits, row, weights.tolist(), strict=True):
                    y, p = y * (1 - smoothing) + smoothing / 4, math.exp(z) / norm
                    term = -y * (1 - p) ** gamma * math.log(p)
                    total, weighted, mass = total + term, weighted + weight * term, mass + weight * y
            plain = hard_loss(S, labels, label_smoothing=smoothing, focal_gamma=gamma)
            assert float(plain) == pytest.approx(total / len(S))
            if gamma > 0:  # torch's cross-entropy has another mean for weighted class probabilities
                heavy = hard_loss(S, labels, label_smoothing=smoothing, focal_gamma=gamma, class_weights=weights)
                assert float(heavy) == pytest.approx(weighted / mass)


def test_the_binary_loss_is_its_definition() -> None:
    """Smoothed to s / 2 and 1 - s / 2, positives weighted, focal by the label itself, by loops."""
    labels, weights = (T > 0).double(), torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    for smoothing, gamma in ((0.0, 0.0), (0.2, 0.0), (0.0, 1.0), (0.2, 3.0)):
        total = 0.0
        for logits, row in zip(S.tolist(), labels.tolist(), strict=True):
            for z, y, weight in zip(logits, row, weights.tolist(), strict=True):
                p = 1 / (1 + math.exp(-z))
                smooth = y * (1 - smoothing) + smoothing / 2
                loss = -(weight * smooth * math.log(p) + (1 - smooth) * math.log(1 - p))
                total += loss * (1 - p if y else p) ** gamma
        found = hard_loss(
            S, labels, multi_label=True, label_smoothing=smoothing, class_weights=weights, focal_gamma=gamma
        )
        assert float(found) == pytest.approx(total / S.numel())
    nothing_known = hard_loss(S, torch.full_like(S, math.nan), multi_label=True)
    assert float(nothing_known) == 0


def test_options_of_the_hard_loss_are_named() -> None:
    with pytest.raises(TypeError, match="positional"):
        hard_loss(S, Y, True)  # type: ignore[misc]


def test_unknown_labels_are_left_out() -> None:
    labels = (T > 0).double()
    labels[1:, 2] = float("nan")
    logits = S.clone().requires_grad_()
    loss = hard_loss(logits, labels, multi_label=True)
    loss.backward()  # type: ignore[no-untyped-call]
    known = ~labels.isnan()
    expected = F.binary_cross_entropy_with_logits(S[known], labels[known])
    assert torch.allclose(loss.detach(), expected)
    assert logits.grad is not None
    assert float(logits.grad[1:, 2].abs().max()) == 0
    focal = hard_loss(S[:1], labels[:1], multi_label=True, focal_gamma=2.0)
    p = torch.where(labels[0] > 0, S[0].sigmoid(), 1 - S[0].sigmoid())
    assert torch.allclose(focal, (-((1 - p) ** 2) * p.log()).mean())


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.min_classes > 2])
def test_a_refused_method_really_teaches_nothing_at_two_classes(name: str) -> None:
    with pytest.raises(InputError, match="needs at least 3 classes, got 2"):
        find_loss(name, 2)
    soft, numbers = LOSSES[name].soft, LOSSES[name].numbers
    assert soft is not None
    student = S[:, :2].clone().requires_grad_()
    if name == "dkd":
        loss = dkd(student, T[:, :2], TWO, alpha=0.0)
    elif name == "dist":
        loss = dist(student, T[:, :2], gamma=0.0)
    else:
        loss = soft(student, T[:, :2], TWO, 2.0, numbers)
    loss.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-6
    three = S[:, :3].clone().requires_grad_()
    soft(three, T[:, :3], TWO, 2.0, numbers).backward()  # type: ignore[no-untyped-call]
    assert three.grad is not None
    assert float(three.grad.abs().max()) > 1e-4


def test_methods_that_are_not_known_or_not_for_several_labels() -> None:
    with pytest.raises(InputError, match="unknown distillation method 'magic'"):
        find_loss("magic", 3)
    for name in ("dkd", "dist", "logitstd", "category_relation"):
        with pytest.raises(InputError, match="one label an image"):
            find_loss(name, 14, multi_label=True)
    assert find_loss("at", 14, multi_label=True).features


def test_class_weights_by_hand() -> None:
    assert balanced_weights(torch.tensor([0, 0, 0, 1]), 2) == pytest.approx((4 / 6, 2.0))
    several = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, float("nan")]])
    assert balanced_weights(several, 2, multi_label=True) == pytest.approx((2.0, 1.0))
    for column, kind in ((torch.zeros(3), "positive"), (torch.ones(3), "negative")):
        labels = torch.stack([several[:, 0], column], dim=1)
        with pytest.raises(InputError, match=f"label 1 has no {kind} training image"):
            balanced_weights(labels, 2, multi_label=True)
    with pytest.raises(InputError, match="class 2 has no training image"):
        balanced_weights(torch.tensor([0, 1, 1]), 3)


def test_rkd_sees_relations_only() -> None:
    points = torch.randn(5, 3, generator=G)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=G))
    assert float(rkd(points, 4 * points @ turn + 2)) == pytest.approx(0, abs=1e-4)
    assert float(rkd(points, torch.randn(5, 3, generator=G))) > 0.1
    with pytest.raises(InputError, match="at least 3 images"):
        rkd(points[:2], points[:2])
    assert float(rkd(points[:3], points[:3])) == 0


def test_attention_and_similarity_by_hand() -> None:
    # One map all on one cell, one spread over two: normalised (1, 0) and (1, 1) / sqrt 2.
    a = torch.tensor([[[[1.0, 0.0]]]])
    b = torch.tensor([[[[1.0, 1.0]]]])
    half = math.sqrt(0.5)
    assert float(attention_transfer(a, b)) == pytest.approx(((1 - half) ** 2 + half**2) / 2)
    # Two orthogonal images against two equal ones: rows (1, 0), (0, 1) against (1, 1) / sqrt 2 twice.
    eye, same = torch.eye(2).view(2, 2, 1, 1), torch.ones(2, 2, 1, 1)
    assert float(similarity_preserving(eye, same)) == pytest.approx(2 * ((1 - half) ** 2 + half**2) / 4)


def test_maps_of_other_grids_meet_on_the_coarser_one() -> None:
    large = torch.randn(2, 3, 8, 8, generator=G)
    small = F.adaptive_avg_pool2d(large, 4)
    assert float(hint(large, small)) == pytest.approx(0, abs=1e-12)
    assert math.isfinite(float(attention_transfer(large, torch.randn(2, 7, 4, 4, generator=G))))
    wide, tall = torch.randn(2, 3, 4, 8, generator=G), torch.randn(2, 3, 8, 6, generator=G)
    pooled = [F.adaptive_avg_pool2d(maps, (4, 6)) for maps in (wide, tall)]
    assert float(hint(wide, tall)) == pytest.approx(float((pooled[0] - pooled[1]).square().mean()))
    assert float(hint(tall, wide)) == pytest.approx(float(hint(wide, tall)))
    with pytest.raises(InputError, match="needs a projector: student has 3 channels, teacher 5"):
        hint(large, torch.randn(2, 5, 4, 4))


def test_category_relation_by_hand() -> None:
    # Two images of two classes on orthogonal unit embeddings, T 1: contrast = log(1 + 1/e), relation 0.
    eye = torch.eye(2)
    value = category_relation(eye, eye, torch.tensor([0, 1]), temperature=1.0)
    assert float(value) == pytest.approx(math.log(1 + math.exp(-1)))
    swapped = category_relation(eye.flip(0), eye, torch.tensor([0, 1]), temperature=1.0)
    assert float(swapped) > float(value)
    # Class numbers may leave gaps in a batch.
    gap = category_relation(eye, eye, torch.tensor([0, 5]), temperature=1.0)
    assert float(gap) == pytest.approx(float(value))


def test_category_relation_is_its_definition() -> None:
    """Both terms by loops over images and classes, numpy's linear algebra beside torch's."""
    labels = [0, 2, 5, 2, 0, 0]  # three of six numbers occur
    s, t = (values.numpy() / np.linalg.norm(values.numpy(), axis=1, keepdims=True) for values in (S, T))

    def log_softmax(values: list[float]) -> list[float]:
        total = math.log(sum(math.exp(value) for value in values))
        return [value - total for value in values]

    def to_centroids(points: np.ndarray, i: int, temperature: float) -> list[float]:
        means = [points[[k for k in range(6) if labels[k] == label]].mean(0) for label in (0, 2, 5)]
        return log_softmax([float(points[i] @ mean) / float(np.linalg.norm(mean)) / temperature for mean in means])

    for temperature, relation_weight in ((0.5, 1.0), (2.0, 3.0)):
        contrast = relation = 0.0
        for i in range(6):
            row = log_softmax([float(s[i] @ t[j]) / temperature for j in range(6)])
            contrast -= float(np.mean([row[j] for j in range(6) if labels[j] == labels[i]])) / 6
            of_s, of_t = to_centroids(s, i, temperature), to_centroids(t, i, temperature)
            relation += sum(math.exp(b) * (b - a) for a, b in zip(of_s, of_t, strict=True)) / 6
        assert relation > 1e-3
        found = category_relation(S, T, torch.tensor(labels), temperature, relation_weight)
        assert float(found) == pytest.approx(contrast + relation_weight * relation)


def _outputs(value: Tensor) -> dict[str, dict[str, Tensor]]:
    return {"x": {"output": value}}


def _theirs(name: str, student: Tensor, teacher: Tensor) -> Tensor:
    from torchdistill.losses import mid_level

    io = {"student_module_path": "x", "student_module_io": "output", "teacher_module_path": "x"}
    io |= {"teacher_module_io": "output"}
    paths = {"student_output_path": "x", "teacher_output_path": "x"}
    pair = {"io": "output", "path": "x"}
    made = {
        "kd": lambda: mid_level.KDLoss(**io, temperature=4.0, beta=1.0),
        "dist": lambda: mid_level.DISTLoss(**io, tau=4.0),
        "logitstd": lambda: mid_level.LogitStdKDLoss(**io, temperature=4.0, beta=1.0),
        "rkd": lambda: mid_level.RKDLoss(**paths, dist_factor=25.0, angle_factor=50.0, reduction="mean"),
        "spkd": lambda: mid_level.SPKDLoss(**paths, reduction="batchmean"),
        "at": lambda: mid_level.ATLoss({"p": {"student": pair, "teacher": pair}}, mode="code"),
    }[name]()
    value: Tensor = made(_outputs(student), _outputs(teacher))
    # torchdistill multiplies by T^2 only next to a hard loss.
    return value * 16 if name in ("kd", "logitstd") else value


@pytest.mark.parametrize(
    ("name", "ours", "inputs"),
    [
        ("kd", lambda s, t: soft_kd(s, t, 4.0), (S, T)),
        ("dist", lambda s, t: dist(s, t, 4.0), (S, T)),
        ("logitstd", lambda s, t: logit_std(s, t, 4.0), (S, T)),
        ("rkd", rkd, (S, T)),
        ("spkd", lambda s, t: similarity_preserving(s, t, norm=1.0), (MAPS_S, MAPS_T)),
        ("at", attention_transfer, (MAPS_S, MAPS_T)),
    ],
)
def test_values_and_gradients_agree_with_torchdistill(name: str, ours: Any, inputs: tuple[Tensor, Tensor]) -> None:
    pytest.importorskip("torchdistill", reason="torchdistill is a development dependency")
    answers = []
    for loss in (ours, lambda s, t: _theirs(name, s, t)):
        student = inputs[0].clone().requires_grad_()
        value = loss(student, inputs[1])
        value.backward()
        answers.append((value.detach(), student.grad))
    (mine, my_gradient), (theirs, their_gradient) = answers
    assert torch.allclose(mine, theirs.to(mine.dtype), rtol=1e-5, atol=1e-7)
    assert my_gradient is not None
    assert their_gradient is not None
    assert torch.allclose(my_gradient, their_gradient, rtol=1e-4, atol=1e-7)
