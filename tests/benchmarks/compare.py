"""Compare the newest saved benchmark run with a baseline, by the ratio of medians: `make bench`, then this.

    python tests/benchmarks/compare.py [--save] [--allowed 1.5]

`--save` makes the newest run the baseline. Ends with 1 if a suite became slower than `allowed` times its baseline.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

FOLDER = Path(".benchmarks")
BASELINE = FOLDER / "baseline.json"


def medians(path: Path) -> dict[str, float]:
    """Read each benchmark's median in seconds from a file of pytest-benchmark."""
    return {entry["fullname"]: entry["stats"]["median"] for entry in json.loads(path.read_text())["benchmarks"]}


def table(before: dict[str, float], after: dict[str, float]) -> list[tuple[str, float | None]]:
    """Give the ratio after / before for every benchmark of either run; None where one of them lacks it."""
    names = sorted({*before, *after})
    return [(name, after[name] / before[name] if name in before and name in after else None) for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--allowed", type=float, default=1.5)
    options = parser.parse_args()
    runs = sorted(FOLDER.glob("*/[0-9]*.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        sys.exit("no saved run: `make bench` makes one")
    if options.save:
        shutil.copyfile(runs[-1], BASELINE)
        sys.exit(0)
    if not BASELINE.is_file():
        sys.exit("no baseline: `make bench-baseline` makes the newest run one")
    ratios = table(medians(BASELINE), medians(runs[-1]))
    for name, ratio in ratios:
        print(f"{'    -' if ratio is None else f'{ratio:5.2f}'}  {name}")
    slower = [name for name, ratio in ratios if ratio is not None and ratio > options.allowed]
    if slower:
        sys.exit(f"{len(slower)} of {len(ratios)} took more than {options.allowed} times their baseline")


if __name__ == "__main__":
    main()
