"""Supernet training and scoring against the plain `ofa` package: the same subnets, batch, threads and float32.

`pytest tests/benchmarks/test_bench_supernet.py -s` prints the ratios. The two sides take turns in one process and are
timed in processor time, so another process on the machine disturbs both alike.
"""

import statistics
import time

import numpy as np
import pytest
import torch

from tutelage.search.spaces.space import SPACES
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


def test_subnets_scored_a_minute(data_dir):
    """Error, AUC and loss on the validation split of PneumoniaMNIST, by one and by two workers in turn (wall time)."""
    data = np.load(data_dir / "pneumoniamnist.npz")
    images, train = (
        (torch.from_numpy(data[f"{part}_images"])[:, None].float() / 255 - 0.5) / 0.25 for part in ("val", "train")
    )
    labels, calibration = torch.from_numpy(data["val_labels"][:, 0]).long(), list(train[:256].split(64))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for name in ("ofa_mbv3_w1.0_stem1", "ofa_mbv3_w1.0"):
            space = SPACES[name].with_resolutions((28,))
            net = build_supernet(space, 2, 1)
            rates: dict[int, list[float]] = {1: [], 2: []}
            for round_ in range(ROUNDS):
                archs = space.decode(space.random(6, np.random.default_rng(round_)))
                for workers, seen in rates.items():
                    started = time.perf_counter()
                    score_subnets(net, archs, calibration, images, labels, workers=workers)
                    seen.append(60 * len(archs) / (time.perf_counter() - started))
            cells = [(n, statistics.median(seen), min(seen), max(seen)) for n, seen in rates.items()]
            cells_text = [f"{n}: {middle:.0f} ({least:.0f}-{most:.0f})" for n, middle, least, most in cells]
            print(f"\n{name}, 28 px, two threads in all, subnets a minute by workers: {'; '.join(cells_text)}")
    finally:
        torch.set_num_threads(threads)
