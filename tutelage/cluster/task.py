"""What a worker does: open the run's images once, compute a stage in its folder, and say how it goes (`perform`)."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tutelage.accelerator import Accelerator
from tutelage.pipeline.context import Context, Resources, open_context
from tutelage.pipeline.keys.stage_inputs import StageInputs, versions_of
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace, remove_checkpoint
from tutelage.progress import silent
from tutelage.records import InputError, NotAvailableError

from .checkpoints import EVERY_S, travelling
from .files import Sent, open_share, own_workspace, pack_made, placed, receive

# Progress of a training is sent at most so often.
_SAY_S = 0.5
# How long a stage's folder may be in use by an earlier attempt, whose process is about to end.
_FOLDER_S = 60.0


@dataclass(frozen=True)
class Message:
    """What a worker says of one stage: its progress, or a line of its log where `total` is 0."""

    key: str
    text: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Task:
    """One stage to compute.

    The worker sees the workspace at the same place; or not, and then `files` are what the stage reads, what it makes is
    sent back, and the worker has a workspace of its own for this `origin`.
    """

    recipe: Recipe
    workspace: Path
    threads: int
    accelerator: Accelerator
    key: str
    inputs: StageInputs
    compute: Callable[[Any, Resources, Path], dict[str, Any]]
    origin: str = ""  # machine and folder of the run; empty: all see its workspace
    files: tuple[Sent, ...] = ()
    share: str | None = None  # what is made goes there; None: with the result
    checkpoint_s: float = EVERY_S  # how often a checkpoint goes there

    @property
    def here(self) -> Path:
        """Give the workspace's folder on this machine."""
        return own_workspace(self.origin) if self.origin else self.workspace


@dataclass(frozen=True)
class Outcome:
    """The result of a stage, or why there is none; what is `final` would fail at every attempt."""

    result: dict[str, Any] | None = None
    reason: str = ""
    trace: str = ""
    final: bool = False
    unavailable: bool = False  # a library or device that is not there: some stages go on without it
    files: tuple[Sent, ...] = ()  # what a worker with a workspace of its own made


_opened: dict[tuple[str, Path, str], Context] = {}  # of this process, which does many tasks of one run


def perform(task: Task, say: Callable[[Message], object]) -> Outcome:
    """Compute a stage. Every error is an outcome: what a worker raises is not known where it is read."""
    say(Message(task.key, f"on {socket.gethostname()}, process {os.getpid()}"))
    with _logged(task.key, say):
        try:
            ctx = context_of(task)
            check_same(task.inputs, ctx)
            here = replace(ctx.resources, report=_Reporter(task.key, say))
            folder = task.here / "artifacts" / task.key
            with _alone(folder, task.here):
                if not task.origin:
                    return Outcome(task.compute(task.inputs, here, folder))
                receive(task.files, task.here)
                with _travelling(task, folder) as taken:
                    if taken:
                        say(Message(task.key, f"goes on from {taken}, which another machine left in the share"))
                    result = task.compute(placed(task.inputs), here, folder)
                files = pack_made(folder, task.share)
                remove_checkpoint(folder)  # the workspace of the run files the stage, not this one
                return Outcome(result, files=files)
        except NotAvailableError as error:
            return Outcome(reason=str(error), final=True, unavailable=True)
        except InputError as error:
            return Outcome(reason=str(error), final=True)
        except Exception as error:  # noqa: BLE001 - reported where the run is
            return Outcome(reason=f"{type(error).__name__}: {error}", trace=traceback.format_exc())


def context_of(task: Task) -> Context:
    """Open the run's images, once a process."""
    name = task.recipe.model_dump_json(), task.here, str(task.accelerator)
    if name not in _opened:
        _opened.clear()  # of another run: its images are freed
        # Ray shows a worker the cards that are its own, counted from 0.
        accelerator = replace(task.accelerator, device=torch.device(task.accelerator.kind))
        workspace = Workspace(task.here)
        _opened[name] = open_context(task.recipe, workspace, silent, task.threads, accelerator=accelerator)
    return _opened[name]


def check_same(inputs: StageInputs, ctx: Context) -> None:
    """Refuse a worker whose libraries or images are not those that the stage's key names."""
    mine, host = versions_of(inputs.versions), socket.gethostname()
    for name, wanted in inputs.versions.items():
        if mine[name] != wanted:
            raise InputError(
                f"{host} has {name} {mine[name] or 'not'}, the run has {wanted or 'none'}: install the same"
            )
    images = getattr(inputs, "images", None)
    sets = {one.name: one.images for one in getattr(inputs, "sets", ())}
    mine_too = {name: ctx.set_input(name) for name in sets}
    if (images is not None and images != ctx.images_input) or sets != mine_too:
        raise InputError(f"{host} reads other images than the run: give both the same files")


@contextmanager
def _alone(folder: Path, workspace: Path) -> Iterator[None]:
    """Hold a stage's folder: a worker that was given up for lost may still write there."""
    locks = workspace / "cache" / "tasks"
    locks.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with (locks / f"{folder.name}.lock").open("w") as handle:
        until = time.monotonic() + _FOLDER_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(f"{folder} is in use by another process") from None
                time.sleep(0.2)
        yield


def _travelling(task: Task, folder: Path) -> AbstractContextManager[str]:
    """Keep the checkpoints of a stage in the share, where there is one."""
    return (
        nullcontext("")
        if task.share is None
        else travelling(open_share(task.share), task.origin, folder, task.checkpoint_s)
    )


class _Reporter:
    """Send a stage's progress, and no more of it than is read."""

    def __init__(self, key: str, say: Callable[[Message], object]) -> None:
        self._key, self._say = key, say
        self._last: dict[str, float] = {}

    def __call__(self, text: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._last.get(text, -_SAY_S) < _SAY_S:
            return
        self._last[text] = now
        self._say(Message(self._key, text, done, total))


class _Lines(logging.Handler):
    """Send what a stage logs."""

    def __init__(self, key: str, say: Callable[[Message], object]) -> None:
        super().__init__(logging.WARNING)
        self._key, self._say = key, say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(Message(self._key, f"{record.levelname.lower()}: {record.getMessage()}"))


@contextmanager
def _logged(key: str, say: Callable[[Message], object]) -> Iterator[None]:
    handler = _Lines(key, say)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
