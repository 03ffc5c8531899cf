"""100,000 rows: the page in at most 5 s, a filtered table in at most 1 s, a front in a blink (one quiet core).

The whole commands are timed as well, from the start of Python to its end.
"""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tutelage.leaderboard import pareto
from tutelage.leaderboard.page.build import build_page
from tutelage.leaderboard.page.data import page_columns
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.terminal.table import columns_to_rank, needed_columns, show_table
from tutelage.records import Row

NUM_ROWS = 100_000
FILTER = "latency_p50_ms<5 and role=student"
# About 2 kB a row, as a run leaves them without pictures.
DETAILS = {
    "how": {"command": "tutelage run demo", "recipe": {f"section_{n}": {"key": "value" * 8} for n in range(20)}},
    "per_class": {name: {"num": 234, "auc": 0.96, "sensitivity": 0.9} for name in ("normal", "pneumonia")},
    "manifest": "9f2c41d07be1a3aa",
}


# What rows are compared by, filled as a run fills it.
KEY = {
    **{"image_size": 64, "runtime": "onnxruntime", "runtime_version": "1.31.1", "processor": "AMD EPYC 7763"},
    **{"precision": "fp32", "power_state": "governor performance, turbo on"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    auc, latency = rng.uniform(0.8, 0.98, NUM_ROWS), rng.lognormal(0, 1, NUM_ROWS)
    filled = Store(tmp_path_factory.mktemp("big") / "leaderboard.db")
    for start in range(0, NUM_ROWS, 10_000):
        filled.add(
            [
                Row(
                    model=f"student {n}",
                    role="student" if n % 3 else "baseline",
                    dataset=f"set{n % 3}",
                    device=f"device{n % 4}",
                    batch=1,
                    threads=1,
                    **KEY,
                    manifest=f"9f2c41d07be1a3a{n % 3}",
                    fold=n % 5,
                    auc=float(auc[n]),
                    auc_lo=float(auc[n] - 0.01),
                    auc_hi=float(auc[n] + 0.01),
                    params=1_000_000 + n,
                    macs=5_000_000 + n,
                    size_bytes=4_000_000 + 4 * n,
                    latency_p50_ms=float(latency[n]),
                    details=DETAILS,
                )
                for n in range(start, start + 10_000)
            ]
        )
    return filled


def test_build_the_page(benchmark, store, tmp_path):
    page = tmp_path / "page.html"
    benchmark.pedantic(
        lambda: build_page(store.frame(columns=page_columns(), categories=True), page, details=store.details), rounds=3
    )
    benchmark.extra_info["page_bytes"] = page.stat().st_size


def test_show_with_a_filter(benchmark, store):
    def more(ids):
        return store.columns(names=needed_columns(), ids=ids)

    def show():
        found = store.columns(FILTER, columns_to_rank())
        show_table(found, Console(file=io.StringIO(), width=140), more=more)

    benchmark.pedantic(show, rounds=5)


@pytest.mark.parametrize("verb", ["show", "build"])
def test_the_whole_command(benchmark, store, tmp_path, verb):
    more = ["--filter", FILTER] if verb == "show" else ["--out", str(tmp_path / "page.html")]
    place = ["--workspace", str(Path(store.place).parent)]
    command = [sys.executable, "-m", "tutelage", "leaderboard", verb, *more, *place]
    benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True), rounds=3)


def test_front_of_three_objectives(benchmark, store):
    frame = store.frame(columns=[*pareto.GROUP, "auc", "latency_p50_ms", "size_bytes"])
    benchmark.pedantic(lambda: pareto.front(frame, ("auc", "latency_p50_ms", "size_bytes")), rounds=3)


def test_file_a_thousand_rows(benchmark, tmp_path):
    rows = [Row(model=f"m{n}", role="student", dataset="d") for n in range(1000)]
    places = iter(range(10**6))
    benchmark.pedantic(
        lambda fresh: fresh.add(rows), setup=lambda: ((Store(tmp_path / f"{next(places)}.db"),), {}), rounds=5
    )
