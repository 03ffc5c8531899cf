"""A board of a million rows: seconds and peak memory of each way to look at it, process start included.

`make bench-store` makes the store (minutes) and prints a table. `--rows` makes a smaller one, `--url` one on a
PostgreSQL server that is empty, `--groups` other numbers of groups; `--keep` keeps the store for the next time. Without
`tutelage leaderboard serve`'s own start the page's time is that of one answer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Pictures and recipes of a run with explanations: what a row's details take.
DETAIL_BYTES = 31_000
DETAILED = 1_000
FILTER = "latency_p50_ms<5 and role=student"
COMMANDS = {
    "show": ["show"],
    "show, filtered": ["show", "--filter", FILTER],
    "show, a rare filter": ["show", "--filter", "model='student 77777'"],
    "show, own front": ["show", "--front", "latency_p50_ms,auc"],
    "show, sorted": ["show", "--sort", "latency_p50_ms"],
    "show, page 1000": ["show", "--page", "1000"],
    "export csv": ["export", "--format", "csv", "--out", "{out}/rows.csv"],
    "export json": ["export", "--format", "json", "--out", "{out}/rows.json"],
    "build": ["build", "--out", "{out}/page.html"],
}


def main() -> None:
    """Make the store and time the commands, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--groups", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--limit-s", type=float, default=600, help="stop a command after so many seconds")
    parser.add_argument("--limit-gb", type=float, default=8, help="stop a command that takes more memory")
    parser.add_argument("--keep", type=Path, default=None)
    parser.add_argument("--url", default="")
    parser.add_argument("--only", default="", help="commands by name, joined by ;")
    given = parser.parse_args()
    if given.url:
        os.environ["TUTELAGE_STORE"] = given.url
    if os.environ.get("TUTELAGE_BENCH_FILL"):
        fill(given.url or given.keep / "leaderboard.db", given.rows, given.groups)
        return
    folder = given.keep or Path(tempfile.mkdtemp(prefix="tutelage-store-"))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "made.json").is_file():
        began = time.perf_counter()
        again = [sys.executable, __file__, *sys.argv[1:], "--keep", str(folder)]
        subprocess.run(again, check=True, env={**os.environ, "TUTELAGE_BENCH_FILL": "1"})
        (folder / "made.json").write_text(json.dumps({"seconds": time.perf_counter() - began, "rows": given.rows}))
    made = json.loads((folder / "made.json").read_text())
    database = folder / "leaderboard.db"
    size = f", {database.stat().st_size / 1e9:.2f} GB" if database.is_file() else ""
    print(f"{made['rows']:,} rows in {given.groups} groups, made in {made['seconds']:.0f} s{size}", flush=True)
    wanted = given.only.split(";") if given.only else [*COMMANDS, "served page"]
    print("| command | seconds (median; least to most) | peak RSS (MB) |\n|---|---:|---:|", flush=True)
    for name in wanted:
        print(measured(name, folder, given), flush=True)
    if given.keep is None:
        shutil.rmtree(folder)


def measured(name: str, folder: Path, given: argparse.Namespace) -> str:
    """Run a command some times; give its line of the table."""
    seconds, peak = [], 0.0
    for _ in range(given.repeat):
        took, rss, said = served(folder) if name == "served page" else run(COMMANDS[name], folder, given)
        if said:
            return f"| {name} | {said} | {rss:,.0f} |"
        seconds.append(took)
        peak = max(peak, rss)
    spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
    return f"| {name} | {np.median(seconds):.2f}; {spread} | {peak:,.0f} |"


def run(words: Sequence[str], folder: Path, given: argparse.Namespace) -> tuple[float, float, str]:
    """Run one command; give its seconds, its peak memory in MB, and why it did not end."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    command = [word.format(out=out) for word in words]
    most = int(given.limit_gb * 1e9)

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    began = time.perf_counter()
    with (out / "printed").open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "tutelage", "leaderboard", *command, "--workspace", str(folder)],
            stdout=printed, stderr=subprocess.STDOUT, preexec_fn=bounded, cwd=folder,
        )  # fmt: skip
        ended, status = 0, 0
        while not ended and time.perf_counter() - began < given.limit_s:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            time.sleep(0.002)
        took = time.perf_counter() - began
        if not ended:
            process.kill()
            _, _, usage = os.wait4(process.pid, 0)
    code = process.returncode = os.waitstatus_to_exitcode(status) if ended else -9
    said = "" if code == 0 else f"exit code {code}: {(out / 'printed').read_text()[-200:].strip()!r}"
    return took, usage.ru_maxrss / 1024, said if ended else f"stopped after {given.limit_s:.0f} s"


def served(folder: Path) -> tuple[float, float, str]:
    """Start the server, ask for the page, and give the seconds of that answer and the server's peak memory."""
    command = [sys.executable, "-m", "tutelage", "leaderboard", "serve", "--port", "0", "--workspace", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    began = time.perf_counter()
    with urllib.request.urlopen(address, timeout=900) as answer:
        size = len(answer.read())
    took = time.perf_counter() - began
    peak = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmHWM" in line)
    process.terminate()
    process.wait()
    return took, int(peak.split()[1]) / 1024, "" if size > 10_000 else f"an answer of {size} bytes"


def fill(place: str | Path, num_rows: int, num_groups: int) -> None:
    """Insert rows in bulk, by the driver itself and before the indexes: filed one by one they would take an hour."""
    from tutelage.leaderboard.store import Store, schema

    store = Store(place)
    names = schema.rows.c.keys()
    with store._write() as connection:
        indexes = [one for one in schema.INDEXES if one.table is schema.rows]
        for one in indexes:
            one.drop(connection)
        said = []

        def lines() -> Iterator[tuple[Any, ...]]:
            for values in drawn(num_rows, num_groups):
                if values["details"] != "{}":
                    said.append((values["number"], values["details"]))
                yield tuple([values.get(name) for name in names])

        _insert(connection, "rows", names, lines())
        _insert(connection, "details", ("number", "body"), said)
        for one in indexes:
            one.create(connection)
    if "://" in str(place):
        with store._engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")  # as the server does by itself, some minutes after
    store.close()


def _insert(connection: Any, table: str, names: Sequence[str], lines: Iterable[tuple[Any, ...]]) -> None:
    cursor = connection.connection.cursor()
    columns = ", ".join(f'"{name}"' for name in names)
    if connection.dialect.name == "postgresql":
        with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
            for line in lines:
                copy.write_row(line)
    else:
        cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(names))})", lines)


def drawn(num_rows: int, num_groups: int) -> Iterator[dict[str, Any]]:
    """Yield rows whose better qualities cost more; every thousandth has the details of a run with pictures."""
    from tutelage.leaderboard.store.values import row_values
    from tutelage.records import Row

    rng = np.random.default_rng(0)
    latency = rng.lognormal(0, 1, num_rows).round(4)
    size = (4e6 * latency * rng.lognormal(0, 0.5, num_rows)).astype(np.int64)
    auc = (0.99 - 0.2 / (1 + latency) - rng.exponential(0.03, num_rows)).clip(0.5, 1).round(5)
    step = max(1, num_rows // DETAILED)
    templates = []
    for group in range(num_groups):
        row = Row(
            model="m", role="student", dataset=f"set{group % 5}", manifest=f"9f2c41d07be1a3a{group % 5}",
            fold=group // 20, device=f"device{group % 4}", processor="AMD EPYC 7763", runtime="onnxruntime",
            runtime_version="1.31.1", precision="fp32", power_state="governor performance, turbo on", threads=1,
            batch=1, image_size=64, recipe="bench", created="2026-11-27T00:00:00Z",
        )  # fmt: skip
        templates.append(row_values(row))
    for number in range(1, num_rows + 1):
        n = number - 1
        values = dict(templates[n % num_groups])
        values["row_id"] = hashlib.sha256(b"%d" % number).hexdigest()[:16]
        values |= {"number": number, "model": f"student {n}", "role": "student" if n % 3 else "baseline", "seed": n % 5}
        values |= {"scheme": "int8-ptq" if n % 2 else "fp32", "teacher": "densenet121" if n % 4 else ""}
        quality, ms, weight = float(auc[n]), float(latency[n]), int(size[n])
        values |= {"auc": quality, "auc_lo": quality - 0.01, "auc_hi": quality + 0.01, "accuracy": quality - 0.05}
        values |= {"latency_p50_ms": ms, "latency_p90_ms": ms * 1.1, "latency_p99_ms": ms * 1.3, "rank_key": -quality}
        values |= {"size_bytes": weight, "params": weight // 4, "macs": 10 * weight, "peak_rss_bytes": 100_000_000 + n}
        values["details"] = "{}" if n % step else json.dumps({"picture": "data:," + "x" * DETAIL_BYTES})
        yield values


if __name__ == "__main__":
    main()
