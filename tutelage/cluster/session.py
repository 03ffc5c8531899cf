"""Start Ray on this host for one run: `on_this_host`."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tutelage.bench.protocol.host import thread_environment
from tutelage.records import NotAvailableError

# Of Ray's store of objects. Files lie in the workspace: what goes through the store is inputs and messages.
_STORE_BYTES = 256 << 20
# A busy host may not start Ray's processes in the half minute that Ray waits for them.
_STARTS = 3


def load_ray() -> Any:
    """Import Ray without its usage statistics, which it would send by default. Raises NotAvailableError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a task without a GPU keeps the variables it has
    try:
        import ray
    except ImportError:
        raise NotAvailableError("several workers need Ray: pip install tutelage[ray]") from None
    return ray


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
