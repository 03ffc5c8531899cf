"""Several processes of one run, as `accelerate launch` or torchrun start them: one leads, the others train along.

Enters: the environment that the launcher set. The leader alone searches, measures and writes; before each training it
tells the others what is trained and with which weights, and they share its batches. Where one process fails, it ends,
and the launcher ends the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tutelage.records import InputError, Student

from .sections import TrainSection

# Between two trainings the others wait for as long as a search and its measurements take.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Training:
    """One training, as the leader tells it. `rounding`: the network is prepared for int8 rounding first."""

    student: Student
    section: TrainSection
    teachers: tuple[Student, ...]
    checkpoint: Path
    seeds: tuple[int, int]
    rounding: bool = False


def num_processes() -> int:
    """Count the processes that the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def follows() -> bool:
    """Tell whether this process is one that trains along with a leader."""
    return num_processes() > 1 and int(os.environ.get("RANK", "0")) > 0


@contextmanager
def leading() -> Iterator[None]:
    """Lead the other processes, if there are any, and let them go when the work is done."""
    if num_processes() > 1:
        _join()
    yield
    if num_processes() > 1:
        _broadcast([None, None])


def tell(training: Training, model: nn.Module) -> None:
    """Have the others take part in a training that is about to start here; alone, nothing happens."""
    if num_processes() > 1 and not follows():
        weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        _broadcast([training, weights])


def told() -> Iterator[tuple[Training, dict[str, Tensor]]]:
    """Give each training to take part in, with the weights it starts from, until the leader is done."""
    _join()
    while True:
        training, weights = _broadcast([None, None])
        if training is None:
            return
        yield training, weights


def _join() -> None:
    import torch
    from accelerate import PartialState

    joined = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE).num_processes
    if joined != num_processes():
        raise InputError(f"{num_processes()} processes were launched and accelerate joins {joined}: see its config")


def _broadcast(items: list[Any]) -> list[Any]:
    from accelerate.utils import broadcast_object_list

    found: list[Any] = broadcast_object_list(items)
    return found
