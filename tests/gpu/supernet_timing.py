"""Steps of the supernet and inferences of its subnets, to be timed by `check_gpu.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_supernet, extract, set_active
from tutelage.search.supernet.train_state import start
from tutelage.search.supernet.training import SupernetSchedule, choose_archs, train_step

SPACE = SPACES["ofa_mbv3_w1.0"]


def our_step(
    accelerator: Any, side: int, batch: int, *, bf16: bool = False, compile: bool = False
) -> Callable[[], Any]:
    """Give a step of `train_step`: the largest, two random and the smallest subnet, AdamW."""
    space = SPACE.with_resolutions((side,))
    net = accelerator.place(build_supernet(space, 10, 3))
    state, rng = start(net, 1e-3, 1e-4, None), np.random.default_rng(0)
    schedule = SupernetSchedule(epochs=1, num_random=2, bf16=bf16 or compile)
    images, labels = _batch(accelerator, side, batch)
    computed = replace(accelerator, compile="inductor" if compile else "")
    return lambda: train_step(state, space, schedule, 10_000, rng, (images, labels, None), accelerator=computed)


def ofa_step(accelerator: Any, side: int, batch: int) -> Callable[[], Any]:
    """Give the same step with the `ofa` package's own modules: the same subnets, losses and optimiser."""
    space = SPACE.with_resolutions((side,))
    net = accelerator.place(build_supernet(space, 10, 3)).train()
    optimizer, rng = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True), np.random.default_rng(0)
    schedule = SupernetSchedule(epochs=1, num_random=2)
    images, labels = _batch(accelerator, side, batch)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        soft = None
        for arch in choose_archs(space, schedule, 0, side, rng):
            set_active(net, arch)
            logits = net(images)
            loss = F.cross_entropy(logits, labels if soft is None else soft)
            loss.backward()
            soft = logits.detach().softmax(1) if soft is None else soft
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()

    return step


def timed_subnets(accelerator: Any, batch: int, compiled: bool, quick: bool) -> tuple[list[Any], Any]:
    """Time random subnets at 32 px in float32, one batch at a time; give them and their median milliseconds."""
    space = SPACE.with_resolutions((32,))
    archs = space.decode(space.random(15 if quick or compiled else 45, np.random.default_rng(1)))
    supernet = build_supernet(space, 10, 3).eval()
    images, _ = _batch(accelerator, 32, batch)
    found = []
    for arch in archs:
        net: Any = accelerator.place(extract(supernet, arch).eval())
        net = torch.compile(net) if compiled else net
        with torch.inference_mode():
            for _ in range(2 if quick else 10):
                net(images)
            found.append(_median_ms(accelerator, net, images, 3 if quick else 30))
    return archs, np.array(found)


def _median_ms(accelerator: Any, net: Any, images: torch.Tensor, repeats: int) -> float:
    if accelerator.kind != "cuda":
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            net(images)
            times.append(1000 * (time.perf_counter() - began))
        return float(np.median(times))
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for first, last in events:
        first.record()
        net(images)
        last.record()
    torch.cuda.synchronize()
    return float(np.median([first.elapsed_time(last) for first, last in events]))


def _batch(accelerator: Any, side: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(batch, 3, side, side).to(accelerator.device, memory_format=torch.channels_last)
    return images, (torch.arange(batch) % 10).to(accelerator.device)
