"""Folds, seeds and students on 1 and 2 workers and in one process: `python tests/benchmarks/cluster_speedup.py`.

On a quiet host of two cores, one thread each everywhere. Pictures are drawn here; a run a fold. Prints wall seconds,
the number of stages done by workers, what a worker adds to a stage (wall of one worker less that of one process, by
stages; not the head's time alone) and the speed-up of two. With `--repeats` all three are run in turns, each in fresh
workspaces; medians are printed.
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

PLACES = {"one process": [], "1 worker": ["--workers", "1"], "2 workers": ["--workers", "2"]}


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
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in PLACES}
    tasks = 0
    with tempfile.TemporaryDirectory() as name:
        recipe = write_recipe(Path(name), options.epochs, options.seeds, options.folds)
        for repeat in range(options.repeats):
            for place, words in PLACES.items():
                spent, done = seconds_of(
                    recipe, Path(name, f"{repeat}-{len(words)}-{words[-1:]}"), options.folds, words
                )
                seconds[place].append(spent)
                tasks = max(tasks, done)
    middle = {place: statistics.median(values) for place, values in seconds.items()}
    for place, spent in middle.items():
        print(f"{place}: {spent:.0f} s")
    added = middle["1 worker"] - middle["one process"]
    print(f"stages done by workers: {tasks}; a worker adds {added / max(1, tasks):.2f} s a stage, Ray's start included")
    alone, one, two = middle.values()
    print(f"that is {added / one:.0%} of the time of one worker")
    print(f"two workers are {one / two:.2f} times as fast as one, {alone / two:.2f} times as fast as one process")


if __name__ == "__main__":
    main()
