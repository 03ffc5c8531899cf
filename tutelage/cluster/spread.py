"""Do the stages of a run on several workers: `spread` and `spread_on_cluster` give the workspace for the run."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tutelage.accelerator import find_accelerator
from tutelage.bench.boards.pool import POOL
from tutelage.bench.devices.profiles import known_profile
from tutelage.bench.protocol.host import available_cores, thread_budget, thread_environment
from tutelage.leaderboard.team.shared_files import SharedFiles
from tutelage.pipeline.keys.stage_inputs import Foreseen
from tutelage.pipeline.processes import num_processes
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import Report
from tutelage.records import InputError

from .checkpoints import EVERY_S, forget
from .files import Sender, open_share
from .session import on_cluster, on_this_host
from .task import Task
from .tasks import Tasks
from .workspace import SpreadWorkspace

# The folder of a workspace that holds a log a task, by the stage's key.
LOGS = "logs"


@contextmanager
def spread(recipe: Recipe, workspace: Workspace, report: Report, workers: int) -> Iterator[SpreadWorkspace]:
    """Start workers on this host and give the workspace whose stages they do. Raises InputError."""
    _check_no_launcher("--workers")
    cores = available_cores()
    if workers > cores:
        raise InputError(f"--workers {workers}: this machine has {cores} core{'s' * (cores != 1)}: give 1 to {cores}")
    _check_no_pools(recipe, workspace, workers)
    threads = thread_budget(workers)
    with on_this_host(workers, threads) as ray:
        yield spread_over(ray, recipe, workspace, report, threads)


@contextmanager
def spread_on_cluster(
    recipe: Recipe, workspace: Workspace, report: Report, address: str, share: str | None = None
) -> Iterator[SpreadWorkspace]:
    """Join a running cluster and give the workspace whose stages its machines do. Raises InputError.

    share: a folder or URL that all machines reach, for files; None: they go through Ray's store of objects.
    """
    _check_no_launcher("--cluster")
    shared = open_share(share) if share is not None else None
    if shared is not None:
        shared.check_writable()
    with on_cluster(address) as (ray, threads):
        yield spread_by_files(ray, recipe, workspace, report, threads, shared)


def spread_over(ray: Any, recipe: Recipe, workspace: Workspace, report: Report, threads: int) -> SpreadWorkspace:
    """Give the workspace whose stages are done by the workers of a Ray on this host, each with some threads."""
    accelerator = find_accelerator(recipe.accelerator, compiles=recipe.compile)

    def task_of(stage: Foreseen) -> Task:
        return Task(recipe, workspace.path, threads, accelerator, stage.key, stage.inputs, stage.compute)

    return SpreadWorkspace(workspace, Tasks(ray, task_of, workspace.path / LOGS, report))


def spread_by_files(
    ray: Any,
    recipe: Recipe,
    workspace: Workspace,
    report: Report,
    threads: int,
    share: SharedFiles | None = None,
    checkpoint_s: float = EVERY_S,
) -> SpreadWorkspace:
    """Give the workspace whose stages are done by machines that see no folder of it: files are sent both ways.

    checkpoint_s: how often the checkpoint of a training goes to the share, at most.
    """
    accelerator = find_accelerator(recipe.accelerator, compiles=recipe.compile)
    sender = Sender(ray, workspace.path, share)
    origin = f"{socket.gethostname()}:{workspace.path}"

    def task_of(stage: Foreseen) -> Task:
        files, url = sender.pack(stage.inputs), share.url if share is not None else None
        return Task(
            recipe,
            workspace.path,
            threads,
            accelerator,
            stage.key,
            stage.inputs,
            stage.compute,
            origin,
            files,
            url,
            checkpoint_s,
        )

    # As the workers of one host have it: Ray's own choice would leave some libraries more threads.
    tasks = Tasks(ray, task_of, workspace.path / LOGS, report, threads, thread_environment(threads))
    return SpreadWorkspace(workspace, tasks, lambda key: None if share is None else forget(share, origin, key))


def _check_no_launcher(option: str) -> None:
    if num_processes() > 1:
        raise InputError(f"{option} divides a run by its networks, a launcher each network: use one of them")


def _check_no_pools(recipe: Recipe, workspace: Workspace, workers: int) -> None:
    """Refuse boards of a cluster beside workers of this host: a process joins one Ray."""
    for section in recipe.devices:
        known = known_profile(section.name, workspace.path)
        if known is not None and known[0].host.startswith(POOL):
            raise InputError(
                f"--workers {workers} starts a Ray of its own, which has no board of device {section.name} "
                f"({known[0].host}): give --cluster with the address of the cluster that has them, or leave it out"
            )
