"""Start Ray on this host for one run, or join a cluster that is running: `on_this_host`, `on_cluster`."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from tutelage.bench.boards.address import STARTS, check_address, join, signals_kept, was_too_slow
from tutelage.bench.boards.pool import load_ray
from tutelage.bench.protocol.host import thread_environment
from tutelage.hub import first_line
from tutelage.records import InputError, NotAvailableError

log = logging.getLogger(__name__)

# Of Ray's store of objects. Files lie in the workspace: what goes through the store is inputs and messages.
_STORE_BYTES = 256 << 20
_END_S = 10.0
# Between two lines that say that a task waits for a machine.
_SAY_S = 60.0


@contextmanager
def on_this_host(workers: int, threads: int) -> Iterator[Any]:
    """Start a Ray of its own for `workers` tasks at a time, each of some threads; gives the module."""
    ray = load_ray()
    folder = _start(
        ray, address="local", num_cpus=workers, include_dashboard=False, object_store_memory=_STORE_BYTES,
        **_quietly(threads),
    )  # fmt: skip
    try:
        yield ray
    finally:
        _end(ray, folder)


@contextmanager
def on_cluster(address: str) -> Iterator[tuple[Any, int]]:
    """Join a running cluster; gives the module and the threads of a task. Raises InputError where none answers.

    address: auto, HOST:6379 of a cluster that this machine is part of, or ray://HOST:10001 from elsewhere.
    """
    check_address(address)
    ray = load_ray()
    try:
        join(ray, address)
    except Exception as error:  # Ray raises no class of its own
        raise InputError(
            f"--cluster {address}: no Ray cluster answers ({first_line(error)}): start one by `ray start --head`, "
            "or give ray://HOST:10001 of its head"
        ) from error
    try:
        yield ray, task_threads(ray)
    finally:
        ray.shutdown()


def task_threads(ray: Any) -> int:
    """Give the threads of a task: OMP_NUM_THREADS, else what every machine has for each of its GPUs, or one task."""
    sizes = machine_sizes(ray)
    if not sizes:
        raise InputError("--cluster: no machine of it has a CPU to give: start one by `ray start --num-cpus`")
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if not asked.isdigit() or int(asked) < 1:
        return max(1, min(cpus // max(1, gpus) for cpus, gpus in sizes))
    if int(asked) > max(cpus for cpus, _ in sizes):
        raise InputError(f"OMP_NUM_THREADS is {asked}: no machine of the cluster has so many CPUs to give a task")
    return int(asked)


def machine_sizes(ray: Any) -> list[tuple[int, int]]:
    """List CPUs and GPUs of the machines that are up and compute; one that only has a board gives no CPU."""
    alive = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    sizes = [(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in alive]
    return [one for one in sizes if one[0] > 0]


class Room:
    """Says once a minute that no machine which is up could take a task: Ray lets it wait without a word."""

    def __init__(self, ray: Any) -> None:
        self._ray, self._said = ray, -_SAY_S

    def look(self, title: str, cpus: int, gpus: int) -> str:
        """Give what is missing for a task of so many CPUs and GPUs, empty where a machine has them; log it."""
        sizes = machine_sizes(self._ray)
        if any(one[0] >= cpus and one[1] >= gpus for one in sizes):
            return ""
        wanted = f"{cpus} CPU{'s' * (cpus > 1)}" + " and a GPU" * (gpus > 0)
        there = "; ".join(f"{one[0]} CPUs, {one[1]} GPUs" for one in sorted(set(sizes))) or "none is up"
        missing = f"no machine of the cluster has {wanted} ({there}): start one by `ray start --address=HEAD`"
        if time.monotonic() - self._said >= _SAY_S:
            self._said = time.monotonic()
            log.warning("%s waits: %s", title, missing)
        return missing


def new_folder() -> str:
    """Make a folder for a start of Ray: short as paths of sockets must be, so that nothing stays in /tmp/ray."""
    return tempfile.mkdtemp(prefix="tutelage-ray-", dir="/tmp" if os.path.isdir("/tmp") else None)


def end_processes(folder: str) -> None:
    """Kill the processes that were started with a folder: Ray forgets them where their start timed out."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(folder in word for word in process.cmdline()):
                found += [process, *process.children(recursive=True)]  # which may have taken another title
        except psutil.Error:  # it ended, or it is another user's
            continue
    for process in found:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(found, timeout=_END_S)


def _start(ray: Any, **settings: Any) -> str:
    """Start Ray, and again where that timed out; gives its folder. Nothing is left of a start that failed."""
    for left in reversed(range(STARTS)):
        folder = new_folder()
        try:
            with signals_kept():
                ray.init(**settings, _temp_dir=folder)
            return folder
        except BaseException as error:
            _end(ray, folder)
            if not was_too_slow(error):
                raise
            if not left:
                raise NotAvailableError(
                    f"Ray did not start within {STARTS} half minutes: the host is too busy; try again, or leave "
                    "--workers out"
                ) from error
    raise AssertionError("the last start returned or raised")


def _end(ray: Any, folder: str) -> None:
    ray.shutdown()
    end_processes(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _quietly(threads: int) -> dict[str, Any]:
    """Give what both ways of starting have in common: workers of so many threads, whose output stays in their logs."""
    variables = {**thread_environment(threads), "RAY_USAGE_STATS_ENABLED": "0"}
    return {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": {"env_vars": variables}}
