"""Start Ray on this host for one run, or join a cluster that is running: `on_this_host`, `on_cluster`."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tutelage.bench.boards.pool import load_ray
from tutelage.bench.protocol.host import thread_environment
from tutelage.records import InputError, NotAvailableError

# Of Ray's store of objects. Files lie in the workspace: what goes through the store is inputs and messages.
_STORE_BYTES = 256 << 20
# A busy host may not start Ray's processes in the half minute that Ray waits for them.
_STARTS = 3


@contextmanager
def on_this_host(workers: int, threads: int) -> Iterator[Any]:
    """Start a Ray of its own for `workers` tasks at a time, each of some threads; gives the module."""
    ray = load_ray()
    # A folder of its own, short as paths of sockets must be, so that nothing stays in /tmp/ray.
    folder = tempfile.mkdtemp(prefix="tutelage-ray-", dir="/tmp" if os.path.isdir("/tmp") else None)
    try:
        _start(
            ray, address="local", num_cpus=workers, include_dashboard=False, object_store_memory=_STORE_BYTES,
            _temp_dir=folder, **_quietly(threads),
        )  # fmt: skip
        try:
            yield ray
        finally:
            ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def on_cluster(address: str) -> Iterator[tuple[Any, int]]:
    """Join a running cluster; gives the module and the threads of a task. Raises InputError where none answers.

    address: auto, HOST:6379 of a cluster that this machine is part of, or ray://HOST:10001 from elsewhere.
    """
    ray = load_ray()
    try:
        with _signals_kept():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray raises no class of its own
        ray.shutdown()
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"--cluster {address}: no Ray cluster answers ({first}): start one by `ray start --head`, or give "
            "ray://HOST:10001 of its head"
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


def _start(ray: Any, **settings: Any) -> None:
    """Start Ray, and again where that timed out."""
    for left in reversed(range(_STARTS)):
        try:
            with _signals_kept():
                ray.init(**settings)
            return
        except Exception as error:  # Ray raises no class of its own
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if not left:
                raise NotAvailableError(
                    f"Ray did not start within {_STARTS} half minutes: the host is too busy; try again, or leave "
                    "--workers out"
                ) from error


def _quietly(threads: int) -> dict[str, Any]:
    """Give what both ways of starting have in common: workers of so many threads, whose output stays in their logs."""
    variables = {**thread_environment(threads), "RAY_USAGE_STATS_ENABLED": "0"}
    return {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": {"env_vars": variables}}


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep this process's own way of ending: Ray puts its handler in the place of ours."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
