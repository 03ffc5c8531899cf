"""One training step of a student, its slow layers against quick ones, in turns: the ratio is printed."""

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tutelage.distill.training.schedule import TrainSchedule, build_optimizer
from tutelage.search.spaces.presets import PRESETS, place
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_arch
from tutelage.search.supernet.fast_layers import use_fast_layers

ROUNDS = 9


def _stepper(net: torch.nn.Module, images: torch.Tensor) -> Callable[[], None]:
    net.train().to(memory_format=torch.channels_last)
    optimizer = build_optimizer([net], TrainSchedule())
    labels = torch.arange(len(images)) % 2

    def step() -> None:
        loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


@pytest.mark.parametrize("name", ["EEEA-Net-C1", "EEEA-Net-C2"])
@pytest.mark.parametrize("side", [32, 64])
def test_student_step(benchmark: Any, name: str, side: int) -> None:
    space = SPACES["ofa_mbv3_w1.0_stem1" if side == 32 else "ofa_mbv3_w1.0"].with_resolutions((side,))
    slow = build_arch(place(PRESETS[name], space, side), 2, 1)
    images = torch.randn(64, 1, side, side)
    steps = [_stepper(net, images) for net in (slow, use_fast_layers(copy.deepcopy(slow)))]
    seconds: list[list[float]] = [[], []]
    for step in steps:
        step()
    for _ in range(ROUNDS):
        for place_, step in enumerate(steps):
            begun = time.perf_counter()
            step()
            seconds[place_].append(time.perf_counter() - begun)
    ratios = sorted(quick / plain for plain, quick in zip(*seconds, strict=True))
    spread = f"{ratios[0]:.2f}-{ratios[-1]:.2f}"
    print(f"{name} {side} px: quick / slow step = {statistics.median(ratios):.2f} ({spread}, {ROUNDS} rounds)")
    benchmark.extra_info["ratio"] = statistics.median(ratios)
    benchmark.pedantic(steps[1], rounds=ROUNDS)
