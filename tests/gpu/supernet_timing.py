"""Steps of the supernet, to be timed by `check_gpu.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_supernet, set_active
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


def _batch(accelerator: Any, side: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(batch, 3, side, side).to(accelerator.device, memory_format=torch.channels_last)
    return images, (torch.arange(batch) % 10).to(accelerator.device)
