"""100,000 rows: the page in at most 5 s, a filtered table in at most 1 s, a front in a blink (one quiet core)."""

import io

import numpy as np
import pytest
from rich.console import Console

from tutelage.leaderboard import pareto
from tutelage.leaderboard.report import build_page
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.terminal import NEEDED_COLUMNS, show_table
from tutelage.records import Row

NUM_ROWS = 100_000


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
                    auc=float(auc[n]),
                    auc_lo=float(auc[n] - 0.01),
                    auc_hi=float(auc[n] + 0.01),
                    params=1_000_000 + n,
                    macs=5_000_000 + n,
                    size_bytes=4_000_000 + 4 * n,
                    latency_p50_ms=float(latency[n]),
                    details={"how": {"command": "tutelage run demo", "manifest": "9f2c41d07be1a3aa"}},
                )
                for n in range(start, start + 10_000)
            ]
        )
    return filled


def test_build_the_page(benchmark, store, tmp_path):
    benchmark.pedantic(lambda: build_page(store.frame(), tmp_path / "page.html"), rounds=3)


def test_show_with_a_filter(benchmark, store):
    def show():
        found = store.frame("latency_p50_ms<5 and role=student", columns=NEEDED_COLUMNS)
        show_table(found, Console(file=io.StringIO(), width=140))

    benchmark.pedantic(show, rounds=3)


def test_front_of_three_objectives(benchmark, store):
    frame = store.frame(columns=[*pareto.GROUP, "auc", "latency_p50_ms", "size_bytes"])
    benchmark.pedantic(lambda: pareto.front(frame, ("auc", "latency_p50_ms", "size_bytes")), rounds=3)


def test_file_a_thousand_rows(benchmark, tmp_path):
    rows = [Row(model=f"m{n}", role="student", dataset="d") for n in range(1000)]
    places = iter(range(10**6))
    benchmark.pedantic(
        lambda fresh: fresh.add(rows), setup=lambda: ((Store(tmp_path / f"{next(places)}.db"),), {}), rounds=5
    )
