"""What distillation costs: the teacher cache, the bootstrap, Score-CAM, bf16. Run on a quiet machine: `make bench`."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tutelage.distill.evaluate import evaluate
from tutelage.distill.explain import explain
from tutelage.distill.schedule import TrainSchedule
from tutelage.distill.soft import SoftTargets
from tutelage.distill.teachers import build_teacher
from tutelage.distill.train import train


@dataclass
class Batch:
    images: Tensor
    labels: Tensor
    indices: Tensor
    aug_seeds: Tensor


class Images:
    """Noise in four classes; two augmentation seeds, so that later epochs see known images again."""

    def __init__(self, num: int, side: int) -> None:
        g = torch.Generator().manual_seed(0)
        self.images, self.labels = torch.randn(num, 1, side, side, generator=g), torch.arange(num) % 4

    def __len__(self) -> int:
        return len(self.images) // 32

    def epoch(self, k: int) -> Iterator[Batch]:
        for rows in torch.randperm(len(self.images), generator=torch.Generator().manual_seed(k)).split(32):
            yield Batch(self.images[rows], self.labels[rows], rows, torch.full_like(rows, k % 2))


@pytest.mark.slow
def test_six_students_of_one_teacher(tmp_path: Path) -> None:
    """Six students, four epochs of two augmentations each: at most .4 of the time without the cache, the same bits."""
    images = Images(64, 64)
    teacher = build_teacher("DenseNet121", 4, 1, 64, seed=1)
    seconds, answers = [], []
    for cache in (None, tmp_path):
        started, weights = time.perf_counter(), []
        for seed in range(6):
            student = build_teacher("mobilenetv3_small_050", 4, 1, seed=seed)
            targets = SoftTargets(teacher, cache)
            schedule = TrainSchedule(epochs=4)
            train(student, images, (images.images[:8], images.labels[:8]), schedule, teachers=[targets], seed=seed)
            weights.append(student.state_dict())
        seconds.append(time.perf_counter() - started)
        answers.append(weights)
    print(f"{seconds[1]:.1f} s with the cache, {seconds[0]:.1f} s without: {seconds[1] / seconds[0]:.2f} of the time")
    assert seconds[1] <= 0.4 * seconds[0]
    for bare, kept in zip(*answers, strict=True):
        assert all(torch.equal(bare[name], kept[name]) for name in bare)


def test_bootstrap_of_a_small_test_set(benchmark: Any) -> None:
    """PneumoniaMNIST's 624 test images, 1000 resamples: the bound is one second."""
    rng = np.random.default_rng(0)
    labels, second = rng.integers(0, 2, 624), rng.random(624)
    probs = np.stack([1 - second, second], 1)
    benchmark(evaluate, probs, labels, np.arange(624).astype(str))
    assert benchmark.stats.stats.min < 1.0


def _ofa_subnet() -> nn.Module:
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3

    net = OFAMobileNetV3(
        n_classes=4, width_mult=1.0, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
    )
    net.set_active_subnet(ks=7, e=6, d=4)
    subnet: nn.Module = net.get_active_subnet()
    return subnet.eval()


def test_score_cam_of_an_ofa_subnet_at_128(benchmark: Any) -> None:
    """The largest subnet of the w1.0 space: the bound is five seconds an image."""
    net, image = _ofa_subnet(), torch.randn(1, 3, 128, 128)
    benchmark.pedantic(explain, (net, image, [0]), {"method": "scorecam"}, rounds=2, warmup_rounds=1)
    assert benchmark.stats.stats.min < 5.0


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_100"])
def test_an_epoch(benchmark: Any, name: str, bf16: bool) -> None:
    """One epoch of 256 images at 64 px."""
    images, net = Images(256, 64), build_teacher(name, 4, 1)
    schedule = TrainSchedule(epochs=1, bf16=bf16)
    val = (images.images[:8], images.labels[:8])
    benchmark.pedantic(train, (net, images, val, schedule), rounds=2, warmup_rounds=1)
