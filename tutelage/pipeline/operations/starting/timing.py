"""What training and scoring cost on this host: a few real steps on noise of the images' shape (`measure_steps`).

Noise costs what images cost; reading and augmenting batches is done by other threads meanwhile and is left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.accelerator import CPU, Accelerator
from tutelage.distill.teachers.zoo import build_teacher
from tutelage.search.spaces.space import Space
from tutelage.search.supernet import build_arch, build_supernet, score_subnets
from tutelage.search.supernet.train_state import start
from tutelage.search.supernet.training import SupernetSchedule, train_step

_REPEATS = 3
_SCORED = 4  # subnets that are scored together, as a search does


@dataclass(frozen=True)
class StepTimes:
    """Seconds an image: a supernet step of three subnets, scoring a subnet, and training a student and a teacher."""

    supernet: float
    score: float
    student: float
    teacher: float
    measured: bool

    def at(self, side: int, other: int) -> StepTimes:
        """Give the times at another image size, which go with its area."""
        factor = (other / side) ** 2
        return StepTimes(
            self.supernet * factor, self.score * factor, self.student * factor, self.teacher * factor, self.measured
        )


# Where nothing is measured here: rough estimates for two cores of a server at 64 px, which were not measured. Another
# host may take several times as long; `measure_steps` says what it takes.
STATED, STATED_SIDE = StepTimes(supernet=0.011, score=0.0014, student=0.0035, teacher=0.012, measured=False), 64


def stated_steps(side: int) -> StepTimes:
    """Give rough estimates for a host that was not measured."""
    return STATED.at(STATED_SIDE, side)


def measure_steps(
    space: Space,
    side: int,
    channels: int,
    num_classes: int,
    batch_size: int,
    *,
    teacher: str = "",
    multi_label: bool = False,
    accelerator: Accelerator = CPU,
) -> StepTimes:
    """Time steps at `side` pixels, medians of three after one that warms up; seconds in all on two cores.

    teacher: a name of the zoo; empty: the time of a student stands for it.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, channels, side, side, generator=generator)
    labels = torch.randint(0, num_classes, (batch_size,), generator=generator)
    if multi_label:
        labels = F.one_hot(labels, num_classes).float()
    images, labels = images.to(accelerator.device), labels.to(accelerator.device)
    space, rng = space.with_resolutions((side,)), np.random.default_rng(0)
    net = build_supernet(space, num_classes, channels)
    accelerator.place(net)
    state, schedule = start(net, 1e-3, 1e-4, None), SupernetSchedule(epochs=1, num_random=1)

    def supernet_step() -> None:
        train_step(
            state, space, schedule, 100, rng, (images, labels, None), multi_label=multi_label, accelerator=accelerator
        )

    archs = space.decode(space.random(_SCORED, rng))

    def score() -> None:
        score_subnets(net, archs, [images], images, labels, multi_label=multi_label)

    steps = [_seconds(supernet_step), _seconds(score) / _SCORED]
    networks: list[nn.Module] = [build_arch(archs[0], num_classes, channels)]
    if teacher:
        networks.append(build_teacher(teacher, num_classes, channels, resolution=side))
    plain = [_seconds(_plain_step(network, images, labels, accelerator)) for network in networks]
    supernet, scored, student, teaching = (value / batch_size for value in (*steps, plain[0], plain[-1]))
    return StepTimes(supernet, scored, student, teaching, measured=True)


def _plain_step(network: nn.Module, images: Tensor, labels: Tensor, accelerator: Accelerator) -> Callable[[], None]:
    accelerator.place(network)
    optimizer = torch.optim.AdamW(network.train().parameters())
    loss_of = F.binary_cross_entropy_with_logits if labels.ndim == 2 else F.cross_entropy

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss: Tensor = loss_of(network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _seconds(work: Callable[[], None]) -> float:
    times = []
    for _ in range(1 + _REPEATS):
        begun = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])
