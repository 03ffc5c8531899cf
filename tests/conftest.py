"""What every test may ask for: the optional folder of real data, a quiet use of the cores, the order of the files."""

import os
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
    "test_papers.py",
    "test_quantizing.py",
    "test_objectives.py",
    "test_processes.py",
    "test_device.py",
    "test_pruned.py",
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


@pytest.fixture(autouse=True)
def _no_refusal_for_a_busy_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let halves of a measurement differ as they may: a test that refuses a device says its own tolerance."""
    monkeypatch.setattr("tutelage.bench.protocol.measure.TOLERANCE", 10.0)
