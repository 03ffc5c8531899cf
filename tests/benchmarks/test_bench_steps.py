"""One step of what a search spends its time on: the predictor, a generation, a supernet step, a distillation step."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from tutelage.distill.teachers.zoo import build_teacher
from tutelage.distill.training.schedule import TrainSchedule
from tutelage.distill.training.soft_targets import SoftTargets
from tutelage.distill.training.train import train
from tutelage.search.costs.counts import count
from tutelage.search.loop import Objective, search
from tutelage.search.predict import AccuracyPredictor
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_supernet, forward_subnet

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))
BATCH = 32


@dataclass
class Batch:
    """One batch as the loader gives it."""

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    aug_seeds: torch.Tensor


class OneBatch:
    """An epoch of a single batch of noise in four classes at 64 px."""

    def __init__(self) -> None:
        images = torch.randn(BATCH, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        rows = torch.arange(BATCH)
        self.batch = Batch(images, rows % 4, rows, torch.zeros_like(rows))

    def __len__(self) -> int:
        return 1

    def epoch(self, k: int) -> Iterator[Batch]:
        yield self.batch


@pytest.fixture(scope="module")
def scored() -> tuple[list[Any], np.ndarray]:
    """200 archs with a made-up accuracy that rises with the logarithm of the MACs."""
    archs = SPACE.decode(SPACE.random(200, np.random.default_rng(0)))
    return archs, 0.1 * np.log(count(archs).macs / 1e6)


def test_fit_the_predictor_on_200(benchmark: BenchmarkFixture, scored: tuple[list[Any], np.ndarray]) -> None:
    benchmark.pedantic(lambda: AccuracyPredictor().fit(*scored), rounds=3, warmup_rounds=1)


def test_predict_10000(benchmark: BenchmarkFixture, scored: tuple[list[Any], np.ndarray]) -> None:
    predictor = AccuracyPredictor().fit(*scored)
    archs = SPACE.decode(SPACE.random(10_000, np.random.default_rng(1)))
    mean, _ = benchmark.pedantic(predictor.predict, (archs,), rounds=3, warmup_rounds=1)
    assert len(mean) == 10_000


def test_a_generation(benchmark: BenchmarkFixture) -> None:
    """EEEA's first population of 40 and one generation after it; scoring itself costs nothing here."""
    error = Objective("error", "min", lambda archs: np.array([1 - sum(a.e) / 240 for a in archs]), cheap=False)
    options = {"strategy": "eeea", "evaluations": 80, "seed": 0}
    found = benchmark.pedantic(search, (SPACE, [error, Objective("macs")]), options, rounds=3, warmup_rounds=1)
    assert len(found.evaluated) == 80


def test_a_supernet_step(benchmark: BenchmarkFixture) -> None:
    """The largest, two random and the smallest subnet, forward and backward, at 32 px."""
    torch.set_num_threads(1)
    net = build_supernet(SPACE, 3, 3).train()
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % 3
    archs = [SPACE.largest(), *SPACE.decode(SPACE.random(2, np.random.default_rng(0))), SPACE.smallest()]

    def step() -> None:
        net.zero_grad()
        for arch in archs:
            torch.nn.functional.cross_entropy(forward_subnet(net, arch, images), labels).backward()

    benchmark.pedantic(step, rounds=3, warmup_rounds=1)


def test_a_distillation_step(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """A training of one batch of 32 at 64 px under a teacher whose soft targets lie in the cache already."""
    torch.set_num_threads(1)
    loader = OneBatch()
    teacher = SoftTargets(build_teacher("resnet10t", 4, 1, 64, seed=1), tmp_path)
    student = build_teacher("mobilenetv3_small_050", 4, 1, seed=0)
    val = (loader.batch.images[:8], loader.batch.labels[:8])
    options = {"teachers": [teacher]}
    benchmark.pedantic(train, (student, loader, val, TrainSchedule(epochs=1)), options, rounds=3, warmup_rounds=1)
