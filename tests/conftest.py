"""What every test may ask for: the optional folder of real data, a quiet use of the cores, the order of the files."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# An example's time says how busy the host is, not whether the code is right.
settings.register_profile("any host", deadline=None)
settings.load_profile("any host")

# Two torch processes with a thread a core each can be 80 times slower than one: a test run takes one thread a process.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Files of whole runs, the longest first: the last file of a suite must not keep one core waiting for the other.
LONGEST = (
    "test_run.py",
    "test_colleague.py",
    "test_papers.py",
    "test_remote.py",
    "test_quantizing.py",
    "test_objectives.py",
    "test_keys.py",
    "test_parallel.py",
    "test_energy.py",
    "test_prune.py",
    "test_supernet.py",
    "test_extending.py",
    "test_counts.py",
    "test_cli.py",
    "test_shrink.py",
    "test_device.py",
    "test_pruned.py",
    "test_rows_of_a_run.py",
    "test_measure.py",
    "test_export_program.py",
    "test_bundle.py",
    "test_processes.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first, the others as they come."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real images and public tables: `TUTELAGE_DATA`, then `../shared/data`; without them the test is skipped."""
    named = os.environ.get("TUTELAGE_DATA")
    places = [Path(named)] if named else [Path(__file__).resolve().parents[2] / "shared" / "data"]
    for place in places:
        if place.is_dir():
            return place
    pytest.skip(f"no real data: set TUTELAGE_DATA (looked in {', '.join(map(str, places))})")


@pytest.fixture(autouse=True, scope="session")
def _own_devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let test processes beside each other time at once: a measurement elsewhere would hold a test up for minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTELAGE_LOCKS", str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _brief_measurements() -> Iterator[None]:
    """Measure for moments, and let halves differ as they may: a host that runs tests is busy, its times mean nothing.

    Every session of measurements times six anchor nets beside the files, 15 s in all as it is used. A test that looks
    at a time, or refuses a device, says its own seconds and tolerance.
    """
    with pytest.MonkeyPatch.context() as patch:
        brief = {"TOLERANCE": 10.0, "WARM_SECONDS": 0.05, "MIN_SECONDS": 0.0, "SETTLE_MS": 1.0, "COPIES": 2}
        for name, value in brief.items():
            patch.setattr(f"tutelage.bench.protocol.measure.{name}", value)
        patch.setattr("tutelage.bench.protocol.offline.WARM_SECONDS", 0.05)
        patch.setattr("tutelage.bench.latency.calibrate._MIN_SECONDS", 0.0)
        patch.setattr("tutelage.bench.latency.calibrate._ROUNDS", 8)
        yield
