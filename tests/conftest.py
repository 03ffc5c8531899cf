"""What every test may ask for: the optional folder of real data, and a quiet use of the cores."""

import os
from pathlib import Path

import pytest

# Two torch processes with a thread a core each can be 80 times slower than one: a test run takes one thread a process.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real images and public tables: `TUTELAGE_DATA`, then `../shared/data`; without them the test is skipped."""
    named = os.environ.get("TUTELAGE_DATA")
    places = [Path(named)] if named else [Path(__file__).resolve().parents[2] / "shared" / "data"]
    for place in places:
        if place.is_dir():
            return place
    pytest.skip(f"no real data: set TUTELAGE_DATA (looked in {', '.join(map(str, places))})")
