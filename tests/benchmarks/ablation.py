"""What each part of a finished run contributed: `tests/benchmarks/ablation.py RECIPE --workspace DIR --device NAME`.

Beside each searched student of the run it trains, in the same workspace: the same architecture from fresh weights with
the epochs of supernet and student (what the supernet's start is worth), and an architecture drawn at random among those
of the same predicted latency, from the supernet with the student's epochs (what the search is worth). All of them train
alone and, where the recipe has teachers, distilled. It prints test accuracy by latency, and the paired difference of
each to the searched student with its 95 % interval over the groups of test images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.bench.devices.profiles import find_profile, load_latency_model
from tutelage.cli.output import cores
from tutelage.pipeline import run as pipeline
from tutelage.pipeline.operations.board import open_board
from tutelage.pipeline.operations.paired import RowFigures
from tutelage.pipeline.recipe import Recipe, load_recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import reporting
from tutelage.records import Arch, Row
from tutelage.search.spaces.space import find_space

NEAR = 0.03  # of the winner's predicted latency: how far that of a random architecture may be from it
DRAWN = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="of a run that has ended in the workspace")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--device", required=True, help="whose latency model and fp32 rows are used")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    asked = parser.parse_args()
    recipe = load_recipe(asked.recipe, asked.changes)
    searched = searched_students(asked.workspace, recipe.name, asked.device)
    randoms = random_alike(searched, asked.device, asked.workspace, recipe.seed)
    ablation = with_named(recipe, searched, randoms)
    with reporting() as report:
        _, published = pipeline.run(ablation, Workspace(asked.workspace), report, cores())
    rows = [row for row in published.rows if row.device == asked.device and row.scheme == "fp32"]
    print_table(searched, rows)
    print_differences(searched, rows, RowFigures(asked.workspace))


def searched_students(workspace: Path, recipe: str, device: str) -> list[Row]:
    """Give the controls of a run's searched students on one device, the fastest first."""
    rows = open_board(workspace).rows(f"role=student and scheme=fp32 and recipe={recipe} and device={device}")
    found = [row for row in rows if row.arch is not None and row.latency_p50_ms is not None]
    return sorted(found, key=lambda row: row.latency_p50_ms or 0.0)


def random_alike(searched: Sequence[Row], device: str, workspace: Path, seed: int) -> dict[str, Arch]:
    """Draw a random architecture of nearly the predicted latency of each, by the device's latency model."""
    profile, folder = find_profile(device, workspace)
    model = load_latency_model(profile, folder)
    own = {row.model: row.arch for row in searched if not row.teacher and row.arch is not None}
    first = next(iter(own.values()))
    space = find_space(first.space).with_resolutions((first.r,))
    drawn = space.decode(space.random(DRAWN, np.random.default_rng(seed)))
    latencies = model.predict(drawn)[0]
    found = {}
    for name, arch in own.items():
        wanted = model.predict([arch])[0][0]
        near = np.flatnonzero(np.abs(latencies / wanted - 1) <= NEAR)
        if not len(near):  # slower or faster than nearly all random ones: the nearest
            near = np.argsort(np.abs(latencies - wanted))[:1]
        found[name] = drawn[int(near[0])]
    return found


def with_named(recipe: Recipe, searched: Sequence[Row], randoms: dict[str, Arch]) -> Recipe:
    """Give the recipe with the ablated students in place of its search and baselines."""
    own = {row.model: row.arch for row in searched if not row.teacher and row.arch is not None}
    students: list[dict[str, Any]] = []
    for name, arch in own.items():
        students += [
            {"name": f"fresh-{name}", "arch": arch.to_dict(), "start": "fresh"},
            {"name": f"random-{name}", "arch": randoms[name].to_dict(), "start": "supernet"},
        ]
    values = recipe.model_dump(mode="json", exclude_unset=True, exclude={"search", "baselines", "bundle", "explain"})
    return Recipe.model_validate({**values, "name": f"{recipe.name}-ablation", "students": students})


def print_table(searched: Sequence[Row], rows: Sequence[Row]) -> None:
    """Print test accuracy by latency: searched from the supernet, the same fresh, and random ones from the supernet."""
    kinds: list[tuple[str, list[Row]]] = []
    for distilled in (False, True):
        names = [row for row in searched if bool(row.teacher) is distilled]
        how = "distilled" if distilled else "alone"
        kinds.append((f"searched, supernet, {how}", names))
        for kind in ("fresh", "random"):
            own = [row for row in rows if row.model.startswith(f"{kind}-") and bool(row.teacher) is distilled]
            kinds.append((f"{'searched, fresh' if kind == 'fresh' else 'random, supernet'}, {how}", own))
    for title, found in kinds:
        ordered = sorted(found, key=lambda row: row.latency_p50_ms or 0.0)
        cells = "  ".join(f"{row.accuracy:.3f} at {row.latency_p50_ms:.3f} ms" for row in ordered)
        mean = np.mean([row.accuracy for row in ordered]) if ordered else float("nan")
        print(f"{title:32} mean {mean:.4f}  {cells}", flush=True)


def print_differences(searched: Sequence[Row], rows: Sequence[Row], figures: RowFigures) -> None:
    """Print what each searched student, from the supernet, has above its ablations of the same way of training."""
    for kind in ("fresh", "random"):
        for row in searched:
            for other in rows:
                if other.model == f"{kind}-{row.model}" and bool(other.teacher) is bool(row.teacher):
                    how = "distilled" if row.teacher else "alone"
                    tests = "; ".join(f"{one.figure}: {one.text}" for one in figures.compare(row, other))
                    print(f"{row.model} less {other.model}, {how}: {tests}", flush=True)


if __name__ == "__main__":
    main()
