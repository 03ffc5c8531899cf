"""The registry of distillation methods: weights at which a soft term counts, and options that are read or refused."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage.distill.data.loader import Loader
from tutelage.distill.data.registry import phantom
from tutelage.distill.losses.logits import dist, dkd, hard_loss
from tutelage.distill.losses.methods import LOSSES, check_distillation, find_loss
from tutelage.distill.training.mixing import Mix
from tutelage.distill.training.schedule import KDConfig, TrainSchedule
from tutelage.distill.training.soft_term import SoftTerm
from tutelage.distill.training.train import train
from tutelage.records import InputError

# The papers' weights were chosen on CIFAR: batches of 64, maps of 32, 16 and 8 px.
CLASSES, SIDE, IMAGES = 4, 32, 64


@dataclass
class Batch:
    images: Tensor
    labels: Tensor
    indices: Tensor
    aug_seeds: Tensor


@cache
def batch() -> Batch:
    """Phantom slices of four classes."""
    loaded = next(iter(Loader(phantom(2 * IMAGES, SIDE), "train", IMAGES).epoch(0)))
    return Batch(loaded.images, loaded.labels, loaded.indices, loaded.aug_seeds)


class OneBatch:
    identity = ""

    def __len__(self) -> int:
        return 1

    def epoch(self, k: int) -> list[Batch]:
        return [batch()]


def stage(channels: int, out: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


def network(width: int, seed: int) -> nn.Module:
    """A plain network of three stages, the shape of CIFAR's ResNets."""
    torch.manual_seed(seed)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, CLASSES))
    stages = (stage(1, width, 1), stage(width, 2 * width, 2), stage(2 * width, 4 * width, 2))
    return nn.Sequential(*stages, *head)


@cache
def trained_teacher() -> nn.Module:
    """A small network that has begun to learn its images: its outputs are no noise."""
    teacher = network(16, seed=50).train()
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=3e-3)
    for _ in range(15):
        optimizer.zero_grad()
        hard_loss(teacher(batch().images), batch().labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return teacher.eval()


def soft_term(method: str, **settings: Any) -> tuple[float, float]:
    """Give the weighted soft term and the hard loss of a student as it starts, on one batch."""
    student = network(8, seed=0)
    images = batch()
    kd = KDConfig(method=method, **settings)
    torch.manual_seed(0)  # projectors
    soft_term = SoftTerm([trained_teacher()], kd, student, images.images[:1], images.images[:1], False, CLASSES)
    logits = student.train()(images.images)
    soft = soft_term.soft(logits, images, Mix(), images.images)
    soft_term.close()
    return float(soft.detach()), float(hard_loss(logits, images.labels).detach())


@pytest.mark.parametrize("method", [name for name, loss in LOSSES.items() if loss.features])
def test_a_feature_term_counts_at_the_start(method: str) -> None:
    soft, hard = soft_term(method)
    # A hint compares the teacher's own values, whose size is the teacher's; all others are normalised.
    assert 0.01 <= soft / hard <= (30 if method == "fitnet" else 10)


@pytest.mark.parametrize("method", ["at", "spkd"])
def test_without_the_papers_weight_it_would_not(method: str) -> None:
    soft, hard = soft_term(method, weight=1.0)
    assert soft / hard < 0.01


def test_weights_are_the_papers_and_can_be_set() -> None:
    papers = {
        "kd": 1, "soft_mse": 1, "dkd": 1, "dist": 1, "logitstd": 9, "rkd": 1, "at": 1000, "fitnet": 100, "spkd": 3000,
        "category_relation": 1,
    }  # fmt: skip
    assert {name: LOSSES[name].weight for name in papers} == papers
    assert LOSSES["rkd"].numbers == {"distance_weight": 25, "angle_weight": 50}
    for method in ("kd", "at"):
        own, other = soft_term(method)[0], soft_term(method, weight=2 * LOSSES[method].weight)[0]
        assert other == pytest.approx(2 * own, rel=1e-5)
    # The logits of a feature method have their own weight: the features' thousand is not theirs.
    logits = soft_term("at", options={"logits_weight": 0.5})[0] - soft_term("at")[0]
    assert logits == pytest.approx(0.5 * soft_term("kd")[0], rel=1e-4)


def test_every_weight_names_its_source() -> None:
    for loss in LOSSES.values():
        assert loss.weight_source
        assert loss.weight == 1 or loss.weight_source != "ours"


@pytest.mark.parametrize(("method", "number"), [(m, n) for m, loss in LOSSES.items() for n in loss.numbers])
def test_every_number_of_a_method_is_read(method: str, number: str) -> None:
    default = LOSSES[method].numbers[number]
    usual, again = soft_term(method)[0], soft_term(method, options={number: default})[0]
    assert again == usual
    assert soft_term(method, options={number: 3 * default})[0] != pytest.approx(usual, rel=1e-3)


def test_alpha_beta_and_gamma_go_where_they_belong() -> None:
    g = torch.Generator().manual_seed(0)
    s, t, y = torch.randn(6, 4, generator=g), torch.randn(6, 4, generator=g), torch.tensor([0, 1, 2, 3, 1, 0])
    for name, numbers, expected in (
        ("dkd", {"alpha": 2.0, "beta": 5.0}, dkd(s, t, y, 3.0, alpha=2.0, beta=5.0)),
        ("dist", {"beta": 2.0, "gamma": 5.0}, dist(s, t, 3.0, beta=2.0, gamma=5.0)),
    ):
        soft = LOSSES[name].soft
        assert soft is not None
        assert torch.equal(soft(s, t, y, 3.0, numbers), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "at", "temperature": 4.0}, "temperature = 4 has no effect under method 'at'"),
        ({"method": "spkd", "temperature": 2.0}, "temperature = 2 has no effect under method 'spkd'"),
        ({"method": "category_relation", "temperature": 2.0}, "temperature = 2 has no effect"),
        ({"method": "rkd", "combine": "best"}, "combine = 'best' has no effect under method 'rkd'"),
        ({"options": {"teacher_layers": ["a"]}}, "'teacher_layers' has no effect under method 'kd'.* reads no options"),
        ({"method": "rkd", "options": {"student_layers": ["a"]}}, "'student_layers' has no effect under method 'rkd'"),
        ({"options": {"logits_weight": 1.0}}, "'logits_weight' has no effect under method 'kd'"),
        ({"options": {"mean_teacher": 0.9}}, "'mean_teacher' has no effect under method 'kd'"),
        ({"options": {"beta": 8.0}}, "'beta' has no effect under method 'kd'"),
        ({"method": "dkd", "options": {"gamma": 1}}, "'gamma' has no effect under method 'dkd', which reads alpha, b"),
        ({"method": "at", "options": {"layers": ["a"]}}, "unknown distillation option 'layers': method 'at' reads stu"),
        ({"method": "at", "options": {"teacher_layers": "blocks.3"}}, "give a list of layer names"),
        ({"method": "at", "options": {"logits_weight": "much"}}, "logits_weight = 'much': give a number"),
        ({"method": "dkd", "options": {"beta": True}}, "beta = True: give a number"),
        ({"method": "dkd", "options": {"beta": -1}}, "beta = -1: give a number of at least 0"),
        ({"method": "at", "options": {"teacher_layers": []}}, "give a list of layer names"),
        ({"method": "at", "options": {"teacher_layers": ["blocks.3", 4]}}, "give a list of layer names"),
        ({"method": "at", "options": {"mean_teacher": 1.5}}, "mean_teacher = 1.5: give the average's decay"),
        ({"method": "at", "options": {"mean_teacher": 1}}, "mean_teacher = 1: give the average's decay"),
        ({"method": "at", "options": {"mean_teacher": 0}}, "mean_teacher = 0: give the average's decay"),
        ({"alpha": 1.0}, "alpha = 1 leaves the teachers without effect"),
    ],
)
def test_what_has_no_effect_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_distillation(KDConfig(**settings), 4, False, num_teachers=2)
    student, teachers = (
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIDE * SIDE, CLASSES)),
        [torch.nn.Identity()] * 2,
    )
    with pytest.raises(InputError, match=message):  # `train` refuses it as well, at once
        train(student, OneBatch(), (batch().images, batch().labels), TrainSchedule(epochs=1), teachers=teachers,
              kd=KDConfig(**settings))  # fmt: skip


def test_what_has_an_effect_is_taken() -> None:
    assert check_distillation(KDConfig(), 2, False).name == "kd"
    logits = {"logits_weight": 1.0}
    best = KDConfig(method="at", temperature=2.0, combine="best", options={**logits, "teacher_layers": ["a"]})
    check_distillation(best, 2, False, num_teachers=2)
    for of_one in ({"num_teachers": 1}, {}):  # one teacher is what is not said otherwise
        with pytest.raises(InputError, match="no two teachers distil together"):
            check_distillation(best, 2, False, **of_one)
    alone = KDConfig(options={"mean_teacher": 0.99})  # the student's own average is the only teacher
    check_distillation(alone, 2, False, num_teachers=0)
    mixed = KDConfig(method="dkd")
    check_distillation(mixed, 3, False)
    with pytest.raises(InputError, match="disable mixup and cutmix"):
        check_distillation(mixed, 3, False, mixing=True)
    assert check_distillation(replace(alone, alpha=1.0), 2, False, num_teachers=0).temperature == 4.0


def test_a_method_without_its_memory_bank_has_another_name() -> None:
    with pytest.raises(InputError, match="'crckd' is called 'category_relation' here, since CRCKD's memory bank"):
        find_loss("crckd", 3)
    assert "without its memory bank" in LOSSES["category_relation"].source
