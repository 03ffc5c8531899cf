"""Several processes of one run, as `accelerate launch` or torchrun start them (read from the environment).

Rank 0 leads (`leading`): only it searches, measures and writes. Before each training it broadcasts the training and the
weights (`announce`); the other ranks receive them (`received_trainings`) and train on their rows of its batches. In
between they sleep and look at the launcher's store, where the leader says what comes next and leaves signs of life.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

from torch import Tensor, nn

from tutelage.accelerator import find_accelerator
from tutelage.records import InputError

from .keys.stage_inputs import StageInputs
from .recipe import Recipe

# The longest that a process may be busy alone while others wait for it in a training: opening the images, a checkpoint.
_PATIENCE = timedelta(minutes=30)
# Between two signs of life of the leader, and how long none may come: a host that swaps is slow, but not dead.
_BEAT_S, _SILENCE_S = 5.0, 300.0
# Between two looks of a follower at the store.
_LOOK_S = 0.2
# How long a leader that is done waits for the others to hear of it: the store may end with its process.
_GOODBYE_S = 10.0
# What the leader leaves in the store: a number that grows, and what comes next, by the number of the training. A
# follower leaves there that it heard the end.
_BEAT, _NEXT, _HEARD = "tutelage/beat", "tutelage/next/{}", "tutelage/heard/{}"
_TRAIN, _DONE, _FAILED = b"train", b"done", b"failed"


@dataclass(frozen=True)
class Training:
    """One training, as the leader broadcasts it: the inputs of its stage, and where its checkpoints lie."""

    inputs: StageInputs  # of `stages/training.py`, which imports this module
    checkpoint: Path


class _Leader:
    """What the leading process tells the others."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._num_said = 0
        self._over = Event()
        self._beats = Thread(target=self._beat, name="signs of life", daemon=True)
        self._beats.start()

    def say(self, what: bytes) -> None:
        """Say what comes next: a training, or no more."""
        self._store.set(_NEXT.format(self._num_said), what)
        self._num_said += 1

    def stop(self, wait_s: float) -> None:
        """Leave no more signs of life; before, wait for the others to have heard the end."""
        heard, until = [_HEARD.format(rank) for rank in range(1, num_processes())], time.monotonic() + wait_s
        while time.monotonic() < until and not self._store.check(heard):
            time.sleep(_LOOK_S / 4)
        self._over.set()
        self._beats.join()

    def _beat(self) -> None:
        store, number = self._store.clone(), 0  # a connection of its own: the other one may be waiting
        while not self._over.wait(_BEAT_S if number else 0):
            number += 1
            try:
                store.set(_BEAT, str(number))
            except RuntimeError:
                return  # the launcher's store is gone, and the run with it


_leader: _Leader | None = None  # of this process, while it leads others


def num_processes() -> int:
    """Count the processes that the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def follows() -> bool:
    """Say whether this process trains along with a leader (its rank is above 0)."""
    return num_processes() > 1 and int(os.environ.get("RANK", "0")) > 0


@contextmanager
def leading(recipe: Recipe) -> Iterator[None]:
    """Lead the other processes, if there are any, and let them go when the work is done or has failed.

    Raises `InputError` where a launcher was to start several processes and this one cannot join them.
    """
    global _leader
    if num_processes() == 1:
        _check_alone()
        yield
        return
    leader = _leader = _Leader(_join(recipe))
    last = _FAILED
    try:
        with one_line_for_a_lost_process():
            yield
        last = _DONE
    finally:
        _leader = None
        leader.say(last)
        leader.stop(_GOODBYE_S if last == _DONE else 0.0)


def _check_alone() -> None:
    """Refuse to go on alone where several processes were meant."""
    remedy = "start them by torchrun --nproc_per_node NUMBER -m tutelage ... (docs/cluster.md)"
    for size in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"):
        if os.environ.get(size, "1") != "1":
            raise InputError(f"mpirun started {os.environ[size]} processes, which know nothing of each other: {remedy}")
    # accelerate sets the address of several processes, and without a GPU starts one all the same.
    if "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
        raise InputError(f"accelerate's launcher started one process where --num_processes names several: {remedy}")


def announce(training: Training, model: nn.Module) -> None:
    """Broadcast a training that is about to start here; nothing happens with one process."""
    if _leader is not None:
        weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        _leader.say(_TRAIN)
        _broadcast([training, weights])


def received_trainings(recipe: Recipe) -> Iterator[tuple[Training, dict[str, Tensor]]]:
    """Give each training to take part in, with the weights it starts from, until the leader is done.

    Raises `InputError` where the leader fails or is lost.
    """
    store = _join(recipe)
    number = 0
    while _comes_next(store, number) == _TRAIN:
        with one_line_for_a_lost_process():
            training, weights = _broadcast([None, None])
        yield training, weights
        number += 1
    store.set(_HEARD.format(os.environ.get("RANK", "1")), "")


def _comes_next(store: Any, number: int) -> bytes:
    """Sleep until the leader has said what comes after `number` trainings: a training, or that it is done."""
    beat, heard = b"", time.monotonic()
    key = _NEXT.format(number)
    try:
        while not store.check([key]):
            found = store.get(_BEAT) if store.check([_BEAT]) else b""
            if found != beat:
                beat, heard = found, time.monotonic()
            elif time.monotonic() - heard > _SILENCE_S:
                raise InputError(f"the leading process gave no sign of life for {_SILENCE_S:g} s: start the run again")
            time.sleep(_LOOK_S)
        said = bytes(store.get(key))
    except RuntimeError:  # torch's errors of a store whose process has ended
        raise InputError("the leading process has ended: look at its message, then start the run again") from None
    if said == _FAILED:
        raise InputError("the leading process has failed: look at its message, then start the run again")
    return said


@contextmanager
def one_line_for_a_lost_process() -> Iterator[None]:
    """Turn torch's error about a process that ended in the middle of a training into one line."""
    try:
        yield
    except RuntimeError as error:
        if num_processes() == 1 or not _is_of_a_lost_process(error):
            raise
        line = f"process {os.environ.get('RANK', '0')} lost another process of the run in the middle of a training"
        raise InputError(f"{line}: look at that one's message, then start the run again") from error


def _is_of_a_lost_process(error: RuntimeError) -> bool:
    from torch.distributed import DistError

    words = ("gloo", "NCCL", "ProcessGroup", "TCPStore")
    return isinstance(error, DistError) or any(word in str(error) for word in words)


def _join(recipe: Recipe) -> Any:
    """Join the other processes, on the recipe's accelerator, and give the store that the launcher keeps for them.

    Raises `InputError` where one of them is lost meanwhile.
    """
    from accelerate import PartialState
    from torch.distributed.distributed_c10d import _get_default_store

    on_cpu = find_accelerator(recipe.accelerator).on_cpu
    try:
        joined = PartialState(cpu=on_cpu, timeout=_PATIENCE).num_processes
    except RuntimeError as error:
        if not _is_of_a_lost_process(error):
            raise
        lost = "the leading process has ended" if follows() else "a process of the run has ended before it joined"
        raise InputError(f"{lost}: look at its message, then start the run again") from error
    if joined != num_processes():
        raise InputError(f"{num_processes()} processes were launched and accelerate joins {joined}: see its config")
    return _get_default_store()


def _broadcast(items: list[Any]) -> list[Any]:
    from accelerate.utils import broadcast_object_list

    received: list[Any] = broadcast_object_list(items)
    return received
