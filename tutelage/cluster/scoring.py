"""Evaluations of a search on workers: `RemoteScorer` lets each subnet be scored where a worker is free."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.pipeline.stages.search import SearchInputs, search_objectives
from tutelage.records import InputError, NotAvailableError
from tutelage.search.objectives import Objective
from tutelage.search.parallel import evaluate
from tutelage.search.replies import Evaluation, Failed, Reply

from .files import placed, receive
from .session import Room
from .task import Task, check_same, context_of

log = logging.getLogger(__name__)

# An evaluation is given up after so many attempts.
MAX_ATTEMPTS = 3
# How long it waits for one before it looks whether any machine could take it.
_LOOK_S = 5.0

_objectives: dict[str, Sequence[Objective]] = {}  # of this process: the supernet is loaded once


@dataclass(frozen=True)
class Scored:
    """What an evaluation came to, or why it came to nothing; what is `final` would fail at every attempt."""

    reply: Reply | None = None
    reason: str = ""
    final: bool = False


def score(task: Task, evaluation: Evaluation) -> Scored:
    """Score a subnet in a worker's process. Every error is a result: what a worker raises is not known elsewhere."""
    try:
        ctx = context_of(task)
        check_same(task.inputs, ctx)
        if task.key not in _objectives:
            inputs = task.inputs
            if task.origin:
                receive(task.files, task.here)
                inputs = placed(inputs)
            assert isinstance(inputs, SearchInputs)
            _objectives.clear()
            _objectives[task.key] = search_objectives(inputs, ctx.resources)
        return Scored(evaluate(_objectives[task.key], evaluation))
    except (InputError, NotAvailableError) as error:
        return Scored(reason=str(error), final=True)
    except Exception as error:  # noqa: BLE001 - reported where the search is
        log.warning("%s", traceback.format_exc())
        return Scored(reason=f"{type(error).__name__}: {error}")


class RemoteScorer:
    """The evaluations of one search on Ray; a lost one is begun again. write: adds a line to the search's log."""

    def __init__(self, ray: Any, task: Task, options: dict[str, Any], write: Callable[[str], object]) -> None:
        self._ray = ray
        self._remote = ray.remote(max_retries=0, **options)(score)
        self._task, self._title, self._options = ray.put(task), task.inputs.title, options
        self._room = Room(ray)
        self._write = write
        self._going: dict[Any, tuple[Evaluation, int]] = {}

    def submit(self, evaluation: Evaluation, attempt: int = 1) -> None:
        """Let a worker score a subnet."""
        self._going[self._remote.remote(self._task, evaluation)] = evaluation, attempt

    def next(self) -> tuple[int, Reply | Failed]:
        """Wait for the next evaluation that ends, or that failed three times. Raises InputError for bad input."""
        while True:
            done, _ = self._ray.wait(list(self._going), num_returns=1, timeout=_LOOK_S)
            if not done:
                self._room.look(self._title, self._options["num_cpus"], self._options["num_gpus"])
                continue
            (reference,) = done
            evaluation, attempt = self._going.pop(reference)
            try:
                found: Scored = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                found = Scored(reason=f"its worker was lost ({type(error).__name__})")
            if found.reply is not None:
                return evaluation.number, found.reply
            what = f"evaluation {evaluation.number} ({evaluation.arch.id})"
            self._write(f"{what}, attempt {attempt} of {MAX_ATTEMPTS} failed: {found.reason}")
            if found.final:
                raise InputError(f"{what} failed: {found.reason}: mend it, and the same command goes on where it was")
            if attempt == MAX_ATTEMPTS:
                reason = f"{what} failed {attempt} times, the last time: {found.reason}"
                log.warning("%s; the search goes on without it", reason)
                return evaluation.number, Failed(reason)
            log.warning("%s: attempt %d failed, again: %s", what, attempt, found.reason)
            self.submit(evaluation, attempt + 1)
