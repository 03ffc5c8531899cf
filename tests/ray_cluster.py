"""A Ray cluster on this host, whose machines are processes: `cluster`. A busy host is given the time that it needs."""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.bench.boards import address
from tutelage.bench.boards.pool import load_ray
from tutelage.cluster import session

# Ray waits half a minute for its processes and no longer.
STARTS = 12
LIGHT = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}


def free_port() -> int:
    """Give a port on which nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def patient() -> Iterator[None]:
    """Let `on_this_host` start Ray, and `join` join a cluster, as often as a busy host needs."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (session, address):
            patch.setattr(module, "STARTS", STARTS)
        yield


class HeadStore:
    """Stands for what the head of a cluster keeps for others."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}
        self.internal_kv = SimpleNamespace(_internal_kv_list=self.list, _internal_kv_put=self.put)

    def list(self, prefix: str, *, namespace: str) -> Any:
        return [key.encode() for key in self.held if key.startswith(prefix)]

    def put(self, key: str, value: str, overwrite: bool, *, namespace: str) -> None:
        self.held[key] = value


class RayCluster:
    """A cluster with a head that computes nothing; `add` and `remove` machines. `client`: its address elsewhere."""

    def __init__(self) -> None:
        load_ray()
        from ray.cluster_utils import Cluster

        # Ray notes the address of the host's cluster below this folder, which it makes only where a start names none.
        self.folders = [session.new_folder()]
        self.environment = pytest.MonkeyPatch()
        self.environment.setenv("RAY_TMPDIR", self.folders[0])
        (Path(self.folders[0]) / "ray").mkdir()
        head = {"num_cpus": 0, **LIGHT, "ray_client_server_port": free_port()}
        self.client = f"ray://127.0.0.1:{head['ray_client_server_port']}"
        self.cluster = self._started(lambda folder: Cluster(True, head_node_args={**head, "temp_dir": folder}))
        self.address: str = self.cluster.address

    def add(self, **offered: Any) -> Any:
        """Start a machine; gives it."""
        return self._started(lambda folder: self.cluster.add_node(**offered, temp_dir=folder))

    def remove(self, machine: Any) -> None:
        """Take a machine away as a power cut does."""
        self.cluster.remove_node(machine, allow_graceful=False)

    def _started(self, start: Callable[[str], Any]) -> Any:
        for left in reversed(range(STARTS)):
            folder = session.new_folder()
            try:
                started = start(folder)
            except Exception as error:
                session.end_processes(folder)
                shutil.rmtree(folder, ignore_errors=True)
                if not left or not address.was_too_slow(error):
                    raise
            else:
                self.folders.append(folder)
                return started
        raise AssertionError("the last start returned or raised")

    def shutdown(self) -> None:
        self.cluster.shutdown()
        self.environment.undo()
        for folder in self.folders:
            session.end_processes(folder)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cluster() -> Iterator[RayCluster]:
    """Start a cluster and end it; meanwhile this process is patient where it joins one."""
    with patient():
        started = RayCluster()
        try:
            yield started
        finally:
            started.shutdown()
