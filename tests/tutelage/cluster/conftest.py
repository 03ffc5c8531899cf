"""What the tests of workers and clusters share: a small recipe, its run in one process, a cluster of machines."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ray_cluster import cluster
from tests.tutelage.cluster.small_run import Machines, small_recipe
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return small_recipe(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    site = tmp_path_factory.mktemp("site")
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        with cluster() as started:
            machines = Machines(started, tmp_path_factory.mktemp("machines"), site)
            machines.add("a")
            yield machines


@pytest.fixture(scope="module")
def alone(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Run the recipe in this process; give its workspace and what it published."""
    place = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tutelage.pipeline.run.bundle_rows", lambda ctx, rows: [])
        return place, pipeline.run(recipe, Workspace(place), silent, 1)[1]
