"""A run of seconds for the tests of workers: its recipe, what kills a worker, and what two runs have in common."""

import json
import os
import re
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tutelage.pipeline.curves import HISTORY
from tutelage.pipeline.recipe import Recipe
from tutelage.search.result import SearchResult

SMALL = {"name": "resnet10t", "options": {"channels": [4, 8, 8, 8]}}


def small_recipe(folder: Path) -> Recipe:
    """Give a recipe with a teacher, a student and a baseline, on pictures that are drawn into the folder."""
    rng = np.random.default_rng(0)
    for kind, level in (("dark", 60), ("light", 190)):
        (folder / kind).mkdir()
        for number in range(30):
            pixels = np.clip(rng.normal(level, 60, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{number}.png")
    return Recipe.model_validate(
        {
            "name": "spread",
            "accelerator": "cpu",
            "data": {"dataset": "folder", "path": str(folder), "size": 16, "augment": "light", "augment_variants": 1},
            "teachers": [{**SMALL, "epochs": 12, "batch_size": 8}],
            "students": [{**SMALL, "title": "small"}],
            "baselines": [{**SMALL, "title": "other", "options": {"channels": [4, 4, 8, 8]}, "epochs": 20}],
            "distill": {"epochs": 1, "batch_size": 8},
            "devices": [{"name": "box", "runtime": "onnxruntime"}],
            "quantize": {"calibration_images": 8},
            "measure": {"samples": 100, "tolerance": 0.99, "bootstrap": 100},
            "explain": {"images": 0},
        }
    )


def changed(recipe: Recipe, **sections: Any) -> Recipe:
    return Recipe.model_validate(recipe.model_dump(mode="json", exclude_defaults=True) | sections)


def searching(recipe: Recipe, **search: Any) -> Recipe:
    """Give a recipe that only trains a supernet and searches it."""
    nothing: dict[str, Any] = {name: [] for name in ("teachers", "students", "baselines", "devices")}
    supernet = {"space": "mbconv_micro_w0.25", "epochs": 1, "batch_size": 8}
    search = {"evaluations": 16, "objectives": ["error", "params"], "strategy": "nsga2", "winners": 1, **search}
    return changed(recipe, supernet=supernet, search=search, **nothing)


def result_in(place: Path) -> tuple[SearchResult, Path]:
    """Read the one search of a workspace; gives its file, too."""
    (file,) = place.glob("artifacts/*/search.json")
    return SearchResult.from_json(file), file


class Killer(threading.Thread):
    """Do away with what does some stages, each so many times, when it has begun to train: `kill` is given a process."""

    def __init__(
        self,
        logs: Path,
        times: dict[str, int],
        kill: Callable[[int], object] = lambda pid: os.kill(pid, signal.SIGKILL),
    ) -> None:
        super().__init__(daemon=True)
        self.kill = kill
        self.logs, self.left, self.killed, self.over = logs, dict(times), list[int](), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.01):
            for log in self.logs.glob("*.log"):
                lines = log.read_text().splitlines()
                title = next((one for one in self.left if lines and f" {one}, attempt" in lines[0]), None)
                attempt = "\n".join(lines).rpartition(", attempt ")[2]
                # The last one: what a worker that was killed said may be written down after the next attempt began.
                processes = re.findall(r"process (\d+)", attempt)
                if title is None or not processes or not re.search(r": \d+/", attempt) or self.left[title] == 0:
                    continue
                process = int(processes[-1])
                if process not in self.killed:
                    with suppress(ProcessLookupError):
                        self.kill(process)
                        self.left[title] -= 1
                    self.killed.append(process)


def files(workspace: Path) -> dict[str, bytes]:
    """Give every file of the finished stages but those that hold times; of a learning curve all but its seconds."""
    finished = [path.parent for path in workspace.glob("artifacts/*/done.json")]
    return {
        str(file.relative_to(workspace)): _untimed(file.read_bytes()) if file.name == HISTORY else file.read_bytes()
        for folder in finished
        for file in folder.rglob("*")
        if file.is_file() and file.name not in ("done.json", "inputs.json", "measurements.json")
    }


def _untimed(history: bytes) -> bytes:
    epochs = [{name: value for name, value in one.items() if "seconds" not in name} for one in json.loads(history)]
    return json.dumps(epochs).encode()


def rows_of(published: Any) -> dict[tuple[str, ...], tuple[float | None, ...]]:
    return {
        (row.model, row.teacher, row.scheme): (row.accuracy, row.auc, row.size_bytes, row.params)
        for row in published.rows
    }
