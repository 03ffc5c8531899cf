"""Folds, seeds and students on 1 and 2 workers: `python tests/benchmarks/cluster_speedup.py`, at most six minutes.

On a quiet host of two cores, one thread each everywhere. Pictures are drawn here; a run a fold, in fresh workspaces.
Rounds of both are run in turns (1 2, 2 1, ...) as long as another one fits the minutes. Prints wall seconds of each
round, the speed-up of two workers in it, and the median and range over the rounds. With `--alone` one process without
Ray runs in each round, too, and what a worker adds to a stage is printed (Ray's start included).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

ONE, TWO, ALONE = "1 worker", "2 workers", "one process"
OPTIONS = {ONE: ["--workers", "1"], TWO: ["--workers", "2"], ALONE: []}


def write_recipe(folder: Path, epochs: int, seeds: int, folds: int) -> Path:
    """Draw 400 pictures of two classes and write a recipe of two students with some seeds each."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 110), ("light", 140)):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(200):
            pixels = np.clip(rng.normal(level, 60, (32, 32)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")
    network = {"name": "resnet10t", "options": {"channels": [16, 16, 32, 32]}}
    students = [
        {**network, "title": "a"},
        {"name": "resnet10t", "title": "b", "options": {"channels": [8, 16, 16, 32]}},
    ]
    recipe = {
        "name": "speedup",
        "accelerator": "cpu",
        "seeds": seeds,
        "data": {
            **{"dataset": "folder", "path": str(folder / "pictures"), "size": 32, "augment": "light"},
            **{"augment_variants": 1, "folds": folds, "fold": 0},
        },
        "teachers": [{**network, "epochs": epochs, "batch_size": 16}],
        "students": students,
        "distill": {"epochs": epochs, "batch_size": 16},
        "devices": [{"name": "box", "runtime": "onnxruntime"}],
        "quantize": {"calibration_images": 16},
        "measure": {"samples": 100, "tolerance": 0.99, "bootstrap": 100},
        "explain": {"images": 0},
        "bundle": {"rows": "none"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def seconds_of(recipe: Path, workspace: Path, folds: int, options: list[str]) -> tuple[float, int]:
    """Run every fold; give the wall seconds and the number of stages that workers did."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begun = time.monotonic()
    for fold in range(folds):
        command = [sys.executable, "-m", "tutelage", "run", str(recipe), "-w", str(workspace), *options]
        command += ["--set", f"data.fold={fold}"]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun, len(list((workspace / "logs").glob("*.log")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0, help="no round is begun that would end later")
    parser.add_argument("--rounds", type=int, default=6, help="at most")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args()
    places = [ONE, TWO, *([ALONE] if options.alone else [])]
    seconds: dict[str, list[float]] = {place: [] for place in places}
    tasks, begun, longest = 0, time.monotonic(), 0.0
    with tempfile.TemporaryDirectory() as name:
        recipe = write_recipe(Path(name), options.epochs, options.seeds, options.folds)
        for number in range(options.rounds):
            since = time.monotonic()
            if since - begun + longest > 60 * options.minutes:
                break
            for place in places if number % 2 == 0 else reversed(places):
                workspace = Path(name, f"{number}-{place.replace(' ', '-')}")
                spent, done = seconds_of(recipe, workspace, options.folds, OPTIONS[place])
                seconds[place].append(spent)
                tasks = max(tasks, done)
            longest = max(longest, time.monotonic() - since)
            said = ", ".join(f"{place} {seconds[place][-1]:.0f} s" for place in places)
            print(f"round {number + 1}: {said}; ratio {seconds[ONE][-1] / seconds[TWO][-1]:.2f}", flush=True)
    ratios = [one / two for one, two in zip(seconds[ONE], seconds[TWO], strict=True)]
    print(
        f"{options.folds} folds, {options.seeds} seeds, 2 students, {tasks} stages by workers, {len(ratios)} rounds: "
        f"two workers are {statistics.median(ratios):.2f} times as fast as one ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    if options.alone:
        added = statistics.median(one - alone for one, alone in zip(seconds[ONE], seconds[ALONE], strict=True))
        share = added / statistics.median(seconds[ONE])
        print(f"a worker adds {added / max(1, tasks):.2f} s a stage, {share:.0%} of the time of one worker")


if __name__ == "__main__":
    main()
