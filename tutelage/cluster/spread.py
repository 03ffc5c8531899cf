"""Do the stages of a run on several workers: `spread` gives the workspace that a run is called with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tutelage.accelerator import find_accelerator
from tutelage.bench.protocol.host import available_cores, thread_budget
from tutelage.pipeline.keys.stage_inputs import Foreseen
from tutelage.pipeline.processes import num_processes
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import Report
from tutelage.records import InputError

from .session import on_this_host
from .task import Task
from .tasks import Tasks
from .workspace import SpreadWorkspace

# The folder of a workspace that holds a log a task, by the stage's key.
LOGS = "logs"


@contextmanager
def spread(recipe: Recipe, workspace: Workspace, report: Report, workers: int) -> Iterator[SpreadWorkspace]:
    """Start workers on this host and give the workspace whose stages they do. Raises InputError."""
    if num_processes() > 1:
        raise InputError("--workers divides a run by its networks, a launcher each network: use one of them")
    cores = available_cores()
    if workers > cores:
        raise InputError(f"--workers {workers}: this machine has {cores} core{'s' * (cores != 1)}: give 1 to {cores}")
    threads = thread_budget(workers)
    with on_this_host(workers, threads) as ray:
        yield spread_over(ray, recipe, workspace, report, threads)


def spread_over(ray: Any, recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> SpreadWorkspace:
    """Give the workspace whose stages are done by the workers of a Ray that is running, each with some threads."""
    accelerator = find_accelerator(recipe.accelerator, compiles=recipe.compile)

    def task_of(stage: Foreseen) -> Task:
        return Task(recipe, workspace.path, threads, accelerator, stage.key, stage.inputs, stage.compute)

    return SpreadWorkspace(workspace, Tasks(ray, task_of, workspace.path / LOGS, report))
