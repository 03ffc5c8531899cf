"""Supernet training and scoring against the plain `ofa` package: the same subnets, batch, threads and float32.

`pytest tests/benchmarks/test_bench_supernet.py -s` prints the ratios. The two sides take turns in one process and are
timed in processor time, so another process on the machine disturbs both alike.
"""

import statistics
import time

import numpy as np
import pytest
import torch

from tutelage.search.space import SPACES
from tutelage.search.supernet import build_supernet, forward_subnet, score_subnets, set_active

BATCH = 64
ROUNDS = 5


def _step(net, archs, images, labels, forward):
    net.zero_grad()
    for arch in archs:
        torch.nn.functional.cross_entropy(forward(net, arch, images), labels).backward()


def _plain(net, arch, images):
    set_active(net, arch)
    return net(images)


def _bf16(net, arch, images):
    return forward_subnet(net, arch, images, bf16=True).float()


def _seconds(call) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


@pytest.mark.parametrize("side", [32, 64])
def test_training_step_against_the_plain_package(side):
    torch.set_num_threads(1)
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((side,))
    net = build_supernet(space, 3, 3).train()
    images, labels = torch.randn(BATCH, 3, side, side), torch.arange(BATCH) % 3
    rng = np.random.default_rng(0)
    ratios: list[float] = []
    halves: list[float] = []
    for round_ in range(ROUNDS + 1):
        archs = [space.largest(), *space.decode(space.random(2, rng)), space.smallest()]
        plain = _seconds(lambda: _step(net, archs, images, labels, _plain))  # noqa: B023 (called at once)
        ours = _seconds(lambda: _step(net, archs, images, labels, forward_subnet))  # noqa: B023
        half = _seconds(lambda: _step(net, archs, images, labels, _bf16))  # noqa: B023
        if round_:  # the first one warms up
            ratios.append(plain / ours)
            halves.append(plain / half)
    for name, values in (("float32", ratios), ("bfloat16", halves)):
        print(
            f"\n{side} px, batch {BATCH}, sandwich step, {name}: {statistics.median(values):.2f} times plain `ofa` "
            f"({min(values):.2f} to {max(values):.2f} in {ROUNDS} interleaved rounds)"
        )
    assert statistics.median(ratios) >= 2.0


def test_subnets_scored_a_minute():
    torch.set_num_threads(1)
    space = SPACES["ofa_mbv3_w1.0_stem1"].with_resolutions((28,))
    net = build_supernet(space, 2, 1)
    archs = space.decode(space.random(4, np.random.default_rng(0)))
    images, labels = torch.randn(524, 1, 28, 28), torch.arange(524) % 2  # as many as PneumoniaMNIST validates on
    calibration = [torch.randn(64, 1, 28, 28) for _ in range(4)]
    seconds = _seconds(lambda: score_subnets(net, archs, calibration, images, labels))
    print(f"\n{60 * len(archs) / seconds:.0f} subnets a minute and core (524 images of 28 px, stem of stride 1)")
