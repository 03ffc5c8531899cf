"""Several processes of one run, as `accelerate launch` or torchrun start them (read from the environment).

Rank 0 leads (`leading`): only it searches, measures and writes. Before each training it broadcasts the training and the
weights (`announce`); the other ranks receive them (`received_trainings`) and train on their
part of its batches. A process that fails ends, and the launcher ends the others.
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

from tutelage.records import InputError

from .keys.stage_inputs import StageInputs

# Between two trainings the others wait for as long as a search and its measurements take.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Training:
    """One training, as the leader broadcasts it: the inputs of its stage, and where its checkpoints lie."""

    inputs: StageInputs  # of `stages/training.py`, which imports this module
    checkpoint: Path


def num_processes() -> int:
    """Count the processes that the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def follows() -> bool:
    """Say whether this process trains along with a leader (its rank is above 0)."""
    return num_processes() > 1 and int(os.environ.get("RANK", "0")) > 0


@contextmanager
def leading() -> Iterator[None]:
    """Lead the other processes, if there are any, and let them go when the work is done."""
    if num_processes() > 1:
        _join()
    yield
    if num_processes() > 1:
        _broadcast([None, None])


def announce(training: Training, model: nn.Module) -> None:
    """Broadcast a training that is about to start here; nothing happens with one process."""
    if num_processes() > 1 and not follows():
        weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        _broadcast([training, weights])


def received_trainings() -> Iterator[tuple[Training, dict[str, Tensor]]]:
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

    received: list[Any] = broadcast_object_list(items)
    return received
