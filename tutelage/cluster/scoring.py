"""Evaluations of a search on workers: `RemoteScorer` lets each subnet be scored where a worker is free."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.pipeline.stages.search import SearchInputs, search_objectives
from tutelage.records import InputError, NotAvailableError
from tutelage.search.objectives import Objective
from tutelage.search.parallel import Evaluation, Reply, evaluate

from .files import placed, receive
from .task import Task, check_same, context_of

log = logging.getLogger(__name__)

# An evaluation is given up after so many attempts.
MAX_ATTEMPTS = 3

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
    """The evaluations of one search on Ray; a lost one is begun again."""

    def __init__(self, ray: Any, task: Task, options: dict[str, Any]) -> None:
        self._ray = ray
        self._remote = ray.remote(max_retries=0, **options)(score)
        self._task = ray.put(task)
        self._going: dict[Any, tuple[Evaluation, int]] = {}

    def submit(self, evaluation: Evaluation, attempt: int = 1) -> None:
        """Let a worker score a subnet."""
        self._going[self._remote.remote(self._task, evaluation)] = evaluation, attempt

    def next(self) -> tuple[int, Reply]:
        """Wait for the next evaluation that ends. Raises InputError for one that failed three times."""
        while True:
            (reference,), _ = self._ray.wait(list(self._going), num_returns=1)
            evaluation, attempt = self._going.pop(reference)
            try:
                found: Scored = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                found = Scored(reason=f"its worker was lost ({type(error).__name__})")
            if found.reply is not None:
                return evaluation.number, found.reply
            what = f"evaluation {evaluation.number} ({evaluation.arch.id})"
            if found.final or attempt == MAX_ATTEMPTS:
                times = "" if found.final else f" {attempt} times, the last time"
                raise InputError(
                    f"{what} failed{times}: {found.reason}: mend it, and the same command goes on where it was"
                )
            log.warning("%s: attempt %d failed, again: %s", what, attempt, found.reason)
            self.submit(evaluation, attempt + 1)
