"""A run of seconds for the tests of workers: its recipe, its machines, stages that are interrupted, what it made."""

import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.ray_cluster import RayCluster
from tutelage.cluster.files import CACHE_VARIABLE
from tutelage.cluster.task import Task
from tutelage.cluster.workspace import SpreadWorkspace
from tutelage.pipeline.curves import HISTORY
from tutelage.pipeline.keys.stage_inputs import Foreseen
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import CHECKPOINT
from tutelage.search.result import SearchResult

SMALL = {"name": "resnet10t", "options": {"channels": [4, 8, 8, 8]}}
PATIENCE_S = 600.0


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


Act = Callable[[str, Path], object]


@dataclass(frozen=True)
class Interrupted:
    """The computation of a stage that calls `act` each time it says how far it is, once it has a checkpoint."""

    compute: Callable[[Any, Any, Path], dict[str, Any]]
    act: Act

    def __call__(self, inputs: Any, here: Any, folder: Path) -> dict[str, Any]:
        place = folder / CHECKPOINT

        def report(text: str, done: int, total: int) -> None:
            here.report(text, done, total)
            if place.is_file() or any(path.suffix != ".part" for path in place.glob("epoch-*")):
                self.act(inputs.title, folder)

        return self.compute(inputs, replace(here, report=report), folder)


def interrupt(patch: pytest.MonkeyPatch, workspace: SpreadWorkspace, titles: Collection[str], act: Act) -> None:
    """Let some stages call `act` in their worker's process at a known point: when they have a checkpoint.

    act: a function of a module, or a partial one, to which the stage's title and its folder there are given last.
    """
    usual = workspace._tasks._task_of

    def task_of(stage: Foreseen) -> Task:
        task = usual(stage)
        return replace(task, compute=Interrupted(task.compute, act)) if stage.inputs.title in titles else task

    patch.setattr(workspace._tasks, "_task_of", task_of)


@dataclass
class Machines:
    """A cluster on this host: a head that computes nothing, and machines with a cache of their own each.

    site: a folder whose `sitecustomize.py`, where a test writes one, each process of the cluster runs at its start.
    """

    cluster: RayCluster
    folder: Path
    site: Path
    nodes: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str) -> Any:
        variables = {CACHE_VARIABLE: str(self.folder / name)}
        self.nodes[name] = self.cluster.add(num_cpus=1, env_vars=variables)
        return self.nodes[name]

    @contextmanager
    def losing(self, mark: Path) -> Iterator[None]:
        """Take away the machine that a file names, when it is there; in the block something must wait for that."""
        over = threading.Event()

        def remove() -> None:
            while not over.wait(0.05):
                if mark.exists():
                    self.cluster.remove(self.nodes.pop(mark.read_text()))
                    return

        thread = threading.Thread(target=remove, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def this_machine() -> Path:
    """Give the folder of the machine that this worker is on: its name is that of the machine."""
    return Path(os.environ[CACHE_VARIABLE])


def wait_for(state: Callable[[], object], what: str) -> None:
    """Wait in a worker until something is so; after ten minutes fail the stage, which says what was missing."""
    end = time.monotonic() + PATIENCE_S
    while not state():
        assert time.monotonic() < end, what
        time.sleep(0.05)


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
