"""`tutelage distill`: train the winners of a search, or one architecture, with the recipe's teachers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.options import (
    DEFAULT_WORKSPACE,
    AcceleratorOption,
    ClusterOption,
    JsonOption,
    LastRecipeOption,
    Place,
    SetOption,
    ShareOption,
    WorkersOption,
    WorkspaceOption,
    last_recipe,
)


def distill(
    arch: Annotated[
        Path | None, typer.Option(help="JSON of one architecture to train; default: the search's winners.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="What is compared with the teacher: {losses}.")] = None,
    accelerator: AcceleratorOption = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    share: ShareOption = None,
    recipe: LastRecipeOption = None,
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Train the winners with each teacher, with all and with none; validation figures only, the test split is not used.

    Example: [bold]tutelage distill --recipe demo --set distill.epochs=5[/]
    """
    from tutelage.cli import output as terminal
    from tutelage.cli.planned import announcing, keys_given, print_plan
    from tutelage.pipeline import run as pipeline
    from tutelage.pipeline.following import follow, leading
    from tutelage.pipeline.operations import single_stage
    from tutelage.pipeline.preflight import Goal, read_recipe

    place = Place(workers, cluster, share)
    goal: Goal = "arch" if arch else "distill"
    options = {"distill.method": method, "accelerator": accelerator}
    chosen = read_recipe(last_recipe(recipe, workspace), set_ or (), workspace, goal, options)
    if follow(chosen, workspace, terminal.cores()):
        return
    with (
        terminal.run_setting(workspace) as setting,
        leading(chosen),
        terminal.workers_setting(chosen, setting, place) as (spread, failed),
    ):
        if arch:
            students = single_stage.distil_arch(chosen, *spread, path=arch, announce=print_plan)
        else:
            announce = announcing(chosen, workspace, keys_given(set_))
            students = pipeline.distill(chosen, *spread, announce=announce)
    if as_json:
        print(json.dumps([student.to_dict() for student in students]))
    else:
        terminal.print_students(students, workspace, Console(markup=False))
    terminal.exit_for_failed(failed)
