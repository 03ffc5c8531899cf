"""Damaged files and text: every reader reads them or raises InputError in one line; nothing else, within bounds.

`make fuzz` tries 10,000 a reader and bounds the CPU time and the memory of each.
"""

import os
import resource
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tutelage.records import FaultsError, InputError

from .readers import READERS, Reader

TRIES = int(os.environ.get("FUZZ", "200"))
LONG = TRIES > 200
CPU_SECONDS = 10  # of one file, under `make fuzz`
MORE_BYTES = 1 << 30  # of memory that a kilobyte may take


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.fixture(autouse=True)
def _bounds() -> Iterator[None]:
    """End a case that takes long or a gigabyte more than there was, where many are tried."""
    if not LONG:
        yield
        return

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {CPU_SECONDS} s of CPU time for one file")

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    signal.signal(signal.SIGVTALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * MORE_BYTES, before[1]))
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.timeout(0 if LONG else 600)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_damaged_file_is_read_or_refused_in_one_line(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.chdir(folder)
    seed, path = reader.seed(folder), folder / f"damaged{reader.suffix}"
    path.write_bytes(seed)
    if reader.whole:
        reader.read(path)  # or all would be refused for another reason
    before, counts = _peak_bytes(), {"read": 0, "refused": 0}

    @settings(
        max_examples=TRIES, derandomize=not LONG, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate,),
    )  # fmt: skip
    @given(st.integers(0, 2**63))
    def try_one(number: int) -> None:
        content = reader.damage(Random(number), seed)
        path.write_bytes(content)
        lines: tuple[str, ...] = ()
        if LONG:
            signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader.read(path)
            counts["read"] += 1
        except InputError as error:
            counts["refused"] += 1
            lines = error.lines if isinstance(error, FaultsError) else (str(error),)
        except BaseException:
            (Path(os.environ.get("FUZZ_OUT", tmp_path)) / f"{reader.name}{reader.suffix}").write_bytes(content)
            raise
        assert all(line.strip() and "\n" not in line for line in lines), lines

    try_one()
    more = _peak_bytes() - before
    if LONG:
        print(f"{reader.name}: {sum(counts.values())} tries, {counts}, peak {more / 1e6:.0f} MB more")
    assert counts["refused"], "no damage was noticed"
    assert more < MORE_BYTES, f"{more} bytes more for a file of {len(seed)}"
