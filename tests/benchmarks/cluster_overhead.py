"""What a task costs the head: `python -m tests.benchmarks.cluster_overhead` (from the repository's folder).

Stages that compute nothing go through the path of every stage, by files as on a cluster: inputs filed, given to Ray,
done by one worker, messages read, result sent back and filed. Counted are the processor seconds of the head: this
process and Ray's own processes, but for the workers. Given a task, as the median and the range of batches. Then the
processor seconds of looking ahead in a recipe with so many students, a stage.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil

from tests.benchmarks.nothing_stage import NothingInputs, nothing
from tests.tutelage.cluster.small_run import SMALL, small_recipe
from tutelage.cluster.session import on_this_host
from tutelage.cluster.spread import spread_by_files
from tutelage.pipeline.context import Context, open_context
from tutelage.pipeline.keys.foreseen import foreseen
from tutelage.pipeline.keys.order import Until
from tutelage.pipeline.keys.plan import walk
from tutelage.pipeline.keys.stage_inputs import Foreseen
from tutelage.pipeline.recipe import Recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent


def head_seconds() -> float:
    """Sum the processor seconds of this process and of Ray's processes, workers apart."""
    spent = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            if not process.cmdline() or process.cmdline()[0].startswith("ray::"):
                continue
            times = process.cpu_times()
        except psutil.Error:
            continue
        spent += times.user + times.system
    return spent


def tasks_of_nothing(ctx: Context, workspace: Workspace, first: int, number: int) -> list[Foreseen]:
    """List stages that compute nothing."""
    found = []
    for one in range(first, first + number):
        inputs = NothingInputs(title=f"nothing {one}", versions={}, number=one)
        found.append(Foreseen.of(workspace.find(inputs)[0], inputs, partial(nothing, inputs, ctx.resources), None))
    return found


def seconds_a_look(folder: Path, students: int) -> tuple[float, int]:
    """Give the processor seconds of looking ahead once in a run with so many students, and the stages that it lists."""
    network = {**SMALL, "epochs": 1}
    (folder / "pictures").mkdir()
    recipe = small_recipe(folder / "pictures").model_dump(mode="json", exclude_defaults=True)
    recipe |= {"students": [{**network, "title": f"s{one}"} for one in range(students)], "baselines": []}
    ctx = open_context(Recipe.model_validate(recipe), Workspace(folder / "w"), silent, 1)
    look = partial(foreseen, ctx, lambda ctx: walk(ctx, devices=(), weighed=(), until=Until.STUDENTS))
    look()
    before = time.process_time()
    found = look()
    return time.process_time() - before, len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=20, help="in a batch")
    parser.add_argument("--students", type=int, nargs="+", default=[10, 100], help="of the run that is looked ahead in")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    spent: list[float] = []
    with tempfile.TemporaryDirectory() as name, on_this_host(1, 1) as ray:
        place = Path(name, "pictures")
        place.mkdir()
        recipe = small_recipe(place)
        workspace = spread_by_files(ray, recipe, Workspace(Path(name, "w")), silent, 1)
        ctx = open_context(recipe, Workspace(Path(name, "w")), silent, 1)
        for batch in range(options.batches + 1):  # the first one starts the worker
            stages = tasks_of_nothing(ctx, workspace, batch * options.tasks, options.tasks)
            workspace.look_ahead(lambda stages=stages: [one for one in stages if workspace.find(one.inputs)[1] is None])
            before = head_seconds()
            for one in stages:
                workspace.run(one.inputs, partial(nothing, one.inputs, ctx.resources))
            spent.append((head_seconds() - before) / options.tasks)
    assert not workspace.failed, workspace.failed
    rest = sorted(spent[1:])
    print(
        f"the head a task: {1e3 * statistics.median(rest):.1f} ms of a processor, {1e3 * rest[0]:.1f} to "
        f"{1e3 * rest[-1]:.1f} ({options.batches} batches of {options.tasks} tasks)"
    )
    for students in options.students:
        with tempfile.TemporaryDirectory() as name:
            seconds, stages_listed = seconds_a_look(Path(name), students)
        print(f"a look ahead with {students} students: {1e3 * seconds:.1f} ms ({stages_listed} stages could be done)")


if __name__ == "__main__":
    main()
