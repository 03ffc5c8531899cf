"""The tasks of a run on Ray: `Tasks` submits stages, repeats those that were lost, and keeps a log of each."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tutelage.bench.boards.pool import POOL
from tutelage.bench.boards.shelf import also_compute
from tutelage.pipeline.keys.stage_inputs import Foreseen
from tutelage.progress import Report
from tutelage.records import utc_now

from .scoring import RemoteScorer
from .session import Room, machine_sizes
from .task import Message, Outcome, Task, perform

log = logging.getLogger(__name__)

# A task is given up after so many attempts.
MAX_ATTEMPTS = 3
# How long the run waits for a task before it looks at their messages.
_LOOK_S = 0.5
# How long it waits for what they have said when nothing is done any more: nobody may ask again.
_LAST_S = 60.0
# What Ray has each cluster's head offer, one of it, so that a part of it places a process there.
_HEAD = "node:__internal_head__"


class _Mail:
    """What the workers have said since it was last read; one process of the cluster keeps it."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque(maxlen=10_000)

    def post(self, message: Message) -> None:
        self._messages.append(message)

    def take(self) -> list[Message]:
        taken = list(self._messages)
        self._messages.clear()
        return taken


def _work(task: Task, mail: Any) -> Outcome:
    """Do a task in a worker's process, whose messages go to the mail."""
    return perform(task, lambda message: mail.post.remote(message))


def _num_gpus(stage: Foreseen) -> int:
    computed_on = getattr(stage.inputs, "accelerator", None)
    return 1 if computed_on is not None and computed_on.kind == "cuda" else 0


@dataclass
class _Running:
    stage: Foreseen
    attempt: int


class Tasks:
    """Stages on Ray.

    task_of: what a worker is given of a stage; logs: the folder of a log a task; cpus: what a task takes of a machine;
    environment: variables of the workers' processes.
    """

    def __init__(
        self,
        ray: Any,
        task_of: Callable[[Foreseen], Task],
        logs: Path,
        report: Report,
        cpus: int = 1,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._ray, self._task_of, self._logs, self._report, self._cpus = ray, task_of, logs, report, cpus
        logs.mkdir(parents=True, exist_ok=True)
        # On the head, which the cluster cannot lose: what the workers said of a machine that dies must outlive it.
        self._mail = ray.remote(num_cpus=0, max_restarts=-1, resources={_HEAD: 0.001})(_Mail).remote()
        self._asked: Any = None  # what the mail was asked for and has not given
        self._options: dict[str, Any] = {"num_cpus": cpus}
        if environment:
            self._options["runtime_env"] = {"env_vars": dict(environment)}
        self._remote = ray.remote(max_retries=0, **self._options)(_work)
        self._running: dict[Any, _Running] = {}
        self._room = Room(ray)

    @property
    def keys(self) -> set[str]:
        """Give the keys of the stages that are being done."""
        return {one.stage.key for one in self._running.values()}

    @property
    def num_free(self) -> int:
        """Count the tasks that the cluster could take on, as it is now."""
        slots = sum(cpus // self._cpus for cpus, _ in machine_sizes(self._ray))
        return max(1, slots) - len(self._running)

    def disturb(self, hosts: Sequence[str]) -> bool:
        """Say whether tasks may compute where devices at these hosts are timed: not on boards that give no CPU."""
        pools = [host.removeprefix(POOL) for host in hosts if host.startswith(POOL)]
        return len(pools) < len(hosts) or also_compute(self._ray, pools)

    def submit(self, stage: Foreseen, attempt: int = 1) -> None:
        """Let a worker do a stage."""
        self._write(stage.key, f"{stage.inputs.title}, attempt {attempt} of {MAX_ATTEMPTS}")
        reference = self._remote.options(num_gpus=_num_gpus(stage)).remote(self._task_of(stage), self._mail)
        self._running[reference] = _Running(stage, attempt)

    def scorer(self, stage: Foreseen) -> RemoteScorer:
        """Give what evaluates the subnets of a search."""
        options = self._options | {"num_gpus": _num_gpus(stage)}
        return RemoteScorer(self._ray, self._task_of(stage), options, partial(self._write, stage.key))

    def wait(self) -> list[tuple[Foreseen, Outcome]]:
        """Wait a moment for tasks to end; gives those that are done, or that no attempt is left for."""
        ended: list[tuple[Foreseen, Outcome]] = []
        if not self._running:
            return ended
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_LOOK_S)
        for reference in done:
            one = self._running.pop(reference)
            outcome = self._outcome(reference)
            self._read_mail()
            if outcome.result is not None:
                self._write(one.stage.key, "done")
            else:
                self._write(one.stage.key, f"failed: {outcome.reason}\n{outcome.trace}".rstrip())
                if not outcome.final and one.attempt < MAX_ATTEMPTS:
                    log.warning("%s: attempt %d failed, again: %s", one.stage.inputs.title, one.attempt, outcome.reason)
                    self.submit(one.stage, one.attempt + 1)
                    continue
            ended.append((one.stage, outcome))
        if not done:
            self._read_mail()
            self._look_for_room()
        if not self._running and self._asked is not None:
            self._read_mail(_LAST_S)  # what it was asked for before
            if self._asked is None:
                self._read_mail(_LAST_S)  # what came after that
        return ended

    def _look_for_room(self) -> None:
        """Say where a task waits for a machine that is not there."""
        for one in self._running.values():
            if self._room.look(one.stage.inputs.title, self._cpus, _num_gpus(one.stage)):
                return

    def _outcome(self, reference: Any) -> Outcome:
        """Give what a worker returned, or that it was lost."""
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            return Outcome(reason=f"its worker was lost ({type(error).__name__})", trace="\n".join(lines[:6]))
        return outcome

    def _read_mail(self, limit_s: float | None = None) -> None:
        """Show the progress of all tasks, and write down what they said. limit_s: how long it may take to answer."""
        if self._asked is None:
            self._asked = self._mail.take.remote()
        try:
            messages = self._ray.get(self._asked, timeout=10 * _LOOK_S if limit_s is None else limit_s)
        except self._ray.exceptions.GetTimeoutError:
            return  # it is busy: asked again, what it gives then would be lost
        except self._ray.exceptions.RayError:
            self._asked = None
            return  # its node is gone: what is computed does not depend on it
        self._asked = None
        for message in messages:
            self._write(message.key, f"{message.text}" + (f": {message.done}/{message.total}" if message.total else ""))
            if message.total:
                self._report(message.text, message.done, message.total)

    def _write(self, key: str, text: str) -> None:
        with (self._logs / f"{key}.log").open("a") as file:
            file.write(f"{utc_now()} {text}\n")
