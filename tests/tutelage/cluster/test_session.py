"""A start of Ray that times out, after which nothing of it runs."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ray_cluster import patient
from tutelage.bench.boards.pool import load_ray
from tutelage.cluster import session
from tutelage.cluster.session import new_folder, on_this_host
from tutelage.records import NotAvailableError


def descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def names(processes: set[psutil.Process]) -> set[str]:
    """Name those that run."""
    found = set()
    for process in processes:
        with suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.name())
    return found


class Starts:
    """The starts of Ray: the folder of each, and what ran of it when Ray had waited for its machine to appear."""

    def __init__(self, patch: pytest.MonkeyPatch, slow: int) -> None:
        load_ray()
        from ray._private import services

        self.before, self.slow, self.get_node = descendants(), slow, services.get_node
        self.folders, self.running = list[Path](), list[set[psutil.Process]]()
        patch.setattr(session, "new_folder", self.folder)
        patch.setattr(services, "get_node", self.look)

    def folder(self) -> str:
        self.folders.append(Path(new_folder()))
        return str(self.folders[-1])

    def look(self, *words: Any) -> Any:
        if len(self.running) == self.slow:
            return self.get_node(*words)
        self.running.append(descendants() - self.before)
        assert {"gcs_server", "raylet"} <= names(self.running[-1])
        raise TimeoutError("The current node timed out during startup.")  # as Ray says half a minute later


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_of_a_start_that_timed_out_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(monkeypatch, slow=1)
    with patient(), on_this_host(1, 1):
        assert not names(starts.running[0])
        assert not starts.folders[0].exists()
        assert "raylet" in names(descendants())
    assert not names(descendants() - starts.before)
    assert not any(one.exists() for one in starts.folders)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_host_that_is_too_busy_to_start_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(monkeypatch, slow=2)
    monkeypatch.setattr(session, "STARTS", 2)
    with pytest.raises(NotAvailableError, match="Ray did not start within 2 half minutes"), on_this_host(1, 1):
        pass
    assert len(starts.running) == len(starts.folders) == 2
    assert not names(descendants() - starts.before)
    assert not any(one.exists() for one in starts.folders)
